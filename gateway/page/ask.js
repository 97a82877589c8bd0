// The page's side of HTTP: one transcription as it happens, and how the service is.

export class Trouble extends Error {
  constructor(code, { message = "", request_id: request = "", wait = null } = {}) {
    super(message || code);
    Object.assign(this, { code, said: message, request, wait });
  }
}

const STORED = "api-key";
export const key = {
  get: () => sessionStorage.getItem(STORED) ?? "",
  set: (value) => sessionStorage.setItem(STORED, value),
  forget: () => sessionStorage.removeItem(STORED),
};

// An upload that is about to go; tells `on.sent(fraction)`, and `signal` cancels it.
// XMLHttpRequest, not fetch: only it knows how much of the upload has gone out.
export function outgoing(address, audio, name, fields, on, signal) {
  const form = new FormData();
  for (const [field, value] of Object.entries(fields)) if (value) form.append(field, value);
  form.append("file", audio, name);
  const request = new XMLHttpRequest();
  request.open("POST", address);
  request.setRequestHeader("Accept", "text/event-stream, application/json");
  if (key.get()) request.setRequestHeader("X-API-Key", key.get());
  request.upload.onprogress = ({ loaded, total }) => on.sent(total ? loaded / total : 0);
  request.upload.onload = () => on.sent(1);
  signal.addEventListener("abort", () => request.abort(), { once: true });
  return { request, form };
}

// Send `audio` and tell `on.sent(fraction)`, `on.segment(segment)`; `signal` cancels.
export function transcribe(audio, name, choices, on, signal) {
  const { request, form } = outgoing("transcribe", audio, name, { stream: "true", ...choices }, on, signal);
  return new Promise((resolve, reject) => {
    const events = reader({ segment: on.segment, transcript: resolve, error: ({ error }) => reject(new Trouble(error.code, error)) });
    const streams = () => request.getResponseHeader("Content-Type")?.startsWith("text/event-stream");
    const read = () => {
      try {
        events(request.responseText);
      } catch (error) {
        reject(error); // what came is none of the events we know
        request.abort();
      }
    };
    let begun = false;
    request.onprogress = () => {
      begun = true;
      if (streams()) read();
    };
    request.onload = () => {
      if (request.status !== 200 || !streams()) return reject(refusal(request.status, request.responseText, request.getResponseHeader("Retry-After")));
      read();
      reject(new Trouble("cut_off")); // does nothing after the transcript has come
    };
    request.onerror = () => reject(new Trouble(begun ? "cut_off" : "no_answer"));
    request.onabort = () => reject(new Trouble("cancelled"));
    request.send(form);
  });
}

const CODES = { 401: "unauthorized", 408: "request_timeout", 413: "too_large", 429: "rate_limited", 502: "no_answer", 503: "unavailable", 504: "deadline_exceeded" };

// A plain HTTP error, also where something between us and the gateway wrote it.
export function refusal(status, body, after) {
  const wait = Number(after) || null;
  try {
    const { error } = JSON.parse(body);
    return new Trouble(error.code, { ...error, wait });
  } catch {
    return new Trouble(CODES[status] ?? (status < 400 ? "no_answer" : `http_${status}`), { message: `The answer was ${status}.`, wait });
  }
}

// Reads server-sent events out of a text that grows; lines that begin with a colon only keep the line open.
export function reader(handlers) {
  let at = 0;
  return (text) => {
    for (let end; (end = text.indexOf("\n\n", at)) !== -1; at = end + 2) {
      let event = "message";
      let id = "";
      const data = [];
      for (const line of text.slice(at, end).split("\n")) {
        const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line) ?? [];
        if (field === "event") event = value;
        if (field === "id") id = value;
        if (field === "data") data.push(value);
      }
      if (data.length) handlers[event]?.(JSON.parse(data.join("\n")), id);
    }
  };
}

// What /health says: { status, ... }, whatever its HTTP status; Trouble where it says nothing.
export async function health() {
  const headers = { Accept: "application/json", ...(key.get() && { "X-API-Key": key.get() }) };
  let reply;
  let body;
  try {
    reply = await fetch("health", { headers, cache: "no-store", signal: AbortSignal.timeout(8000) });
    body = await reply.json();
  } catch {
    throw new Trouble(reply ? "cut_off" : "no_answer");
  }
  if (body?.error) throw new Trouble(body.error.code, body.error);
  return body;
}
