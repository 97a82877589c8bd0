// Recordings too long to be waited for on one line: handed in, followed over any number of lines, remembered over a reload.

import { Trouble, key, outgoing, reader, refusal } from "./ask.js";

const STORED = "job";
const PAUSES = [0.5, 1, 2, 5, 10]; // seconds before the line is tried again
const LATER = new Set(["no_answer", "cut_off", "busy", "stopping", "unavailable", "deadline_exceeded", "rate_limited"]);

// The job that this tab looks at: { id, name, asked }.
export const memory = {
  get: () => JSON.parse(sessionStorage.getItem(STORED)),
  set: (job) => sessionStorage.setItem(STORED, JSON.stringify(job)),
  forget: () => sessionStorage.removeItem(STORED),
};

// Send `audio` and tell `on.sent(fraction)`; the job's id.
export function submit(audio, name, choices, on, signal) {
  const { request, form } = outgoing("jobs", audio, name, { ...choices, priority: "high" }, on, signal);
  return new Promise((resolve, reject) => {
    request.onload = () => {
      const id = request.status === 202 && idIn(request.responseText);
      if (id) resolve(id);
      else reject(refusal(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    };
    request.onerror = () => reject(new Trouble("no_answer"));
    request.onabort = () => reject(new Trouble("cancelled"));
    request.send(form);
  });
}

function idIn(text) {
  try {
    return JSON.parse(text).job_id;
  } catch {
    return null;
  }
}

// Its transcript, when it is done. Tells `on.progress(fraction, status)`, `on.segment(segment)` in their order,
// and `on.away()` where the line is gone and tried again; `signal` stops following, not the job.
export async function follow(id, on, signal) {
  const pieces = inOrder(on.segment);
  let last = "";
  await persist(on, signal, (fresh) => listen(id, last, signal, (event, number) => {
    fresh();
    last = number;
    if (event.window !== null) pieces(event.window, event.segments);
    on.progress(event.progress, event.status);
  }));
  const job = await persist(on, signal, () => look(id, signal));
  if (job.status === "done") return job.result;
  throw new Trouble(job.error?.code ?? job.status, job.error ?? {});
}

// Take a step until it comes to something, though lines break and services restart.
async function persist(on, signal, step) {
  for (let tries = 0; ; tries++) {
    try {
      const came = await step(() => (tries = -1));
      if (came) return came;
    } catch (error) {
      if (!LATER.has(error.code)) throw error;
      on.away();
    }
    await pause(PAUSES[Math.min(Math.max(tries, 0), PAUSES.length - 1)], signal);
  }
}

// Cancel a job, or erase a finished one. Who is away leaves it to age.
export async function drop(id) {
  try {
    for (let cancelled = true, times = 0; cancelled && times < 2; times++) cancelled = (await ask(`jobs/${id}`, { method: "DELETE", keepalive: true })).status === 200;
  } catch (error) {
    if (!(error instanceof Trouble)) throw error;
  }
}

// One line: whether the job has ended on it.
async function listen(id, last, signal, tell) {
  const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
  const reply = await ask(`jobs/${id}/events`, { headers, signal });
  if (reply.status === 204) return true;
  let ended = false;
  const heard = (event, number) => {
    tell(event, number);
    ended = ["done", "failed", "cancelled"].includes(event.status);
  };
  const events = reader({ status: heard, segments: heard, error: ({ error }) => { throw new Trouble(error.code, error); } });
  const stream = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let text = ""; ; ) {
      const { done, value } = await stream.read();
      if (done) return ended;
      events((text += value));
    }
  } catch (error) {
    if (error instanceof Trouble) throw error;
    throw new Trouble(signal.aborted ? "cancelled" : "cut_off");
  }
}

async function look(id, signal) {
  const reply = await ask(`jobs/${id}`, { signal });
  try {
    return await reply.json();
  } catch {
    throw new Trouble(signal.aborted ? "cancelled" : "cut_off");
  }
}

async function ask(address, { headers = {}, ...options }) {
  let reply;
  try {
    reply = await fetch(address, { headers: { ...headers, ...(key.get() && { "X-API-Key": key.get() }) }, cache: "no-store", ...options });
  } catch {
    throw new Trouble(options.signal?.aborted ? "cancelled" : "no_answer");
  }
  if (!reply.ok) throw refusal(reply.status, await reply.text().catch(() => ""), reply.headers.get("Retry-After"));
  return reply;
}

// Pieces may be ready in any order; each is told when all before it are.
function inOrder(tell) {
  const held = new Map();
  let next = 0;
  return (number, segments) => {
    held.set(number, segments);
    for (; held.has(next); next++) {
      held.get(next).forEach(tell);
      held.delete(next);
    }
  };
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(new Trouble("cancelled"));
    signal.addEventListener("abort", () => reject(new Trouble("cancelled")), { once: true });
    setTimeout(resolve, seconds * 1000);
  });
}
