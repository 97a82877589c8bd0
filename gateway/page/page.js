// The page: what it holds, which state it is in, and what each control does.

import { Trouble, transcribe } from "./ask.js";
import { drop, follow, memory, submit } from "./jobs.js";
import { decode, levels, record, wav } from "./microphone.js";
import { heardUntil, length, load, rest, unload, write } from "./player.js";
import { band } from "./ribbon.js";
import { askForKey, choices, lookAround, outage } from "./service.js";
import { FORMATS } from "./subtitles.js";
import { clock, count, explain, languageName, megabytes, span } from "./words.js";

const $ = (id) => document.getElementById(id);
const MAX_BYTES = Number(document.body.dataset.maxBytes);
const MAX_SECONDS = Number(document.body.dataset.maxSeconds);
const MAX_JOB_BYTES = Number(document.body.dataset.maxJobBytes);
const MAX_JOB_SECONDS = Number(document.body.dataset.maxJobSeconds);
const STILL = matchMedia("(prefers-reduced-motion: reduce)");

let clip = null; // { audio, name, buffer, asked, hopeless, job, ended } - what was recorded or chosen
// job: the id of what was made of it, where it was too long for one line; its audio is gone after a reload
let transcript = null;
let recording = null;
let stopAsking = null; // cancels the request under way

// --- states -----------------------------------------------------------------------------------

const SHOWN = {
  empty: ["record", "choose"],
  recording: ["stop", "cancel"],
  working: ["cancel"],
  held: ["play", "again", "record", "choose"],
  result: ["play", "again", "record", "choose"],
};
const state = () => document.body.dataset.state;

function enter(next, words) {
  const focus = document.activeElement?.closest("button, label")?.id ?? "";
  document.body.dataset.state = next;
  for (const id of new Set(Object.values(SHOWN).flat())) $(id).hidden = !SHOWN[next].includes(id);
  $("record").classList.toggle("main", next === "empty");
  $("cancel").textContent = next === "recording" ? "Discard" : "Cancel";
  $("progress").hidden = true;
  $("percent").textContent = "";
  offerAgain();
  if (focus && $(focus)?.hidden) $(SHOWN[next].find((id) => $(id).checkVisibility())).focus();
  say(words);
}

function say(words) {
  if ($("status").textContent !== words) $("status").textContent = words;
}

function offerAgain() {
  const changed = JSON.stringify(choices()) !== JSON.stringify(clip?.asked);
  const offered = !$("trouble").hidden && !$("retry").hidden;
  $("again").hidden = offered || clip?.hopeless || !(state() === "held" || (state() === "result" && changed));
  $("again").textContent = state() === "held" ? "Transcribe" : "Transcribe again";
}

// --- errors -----------------------------------------------------------------------------------

async function complain(error) {
  const trouble = error instanceof Trouble ? error : new Trouble("page_failed", { message: String(error) });
  const looked = lookAround();
  if (trouble.code === "unavailable") await looked; // which of the two ways it is; takes a second at most
  const { what, next, again } = explain((trouble.code === "unavailable" && outage()) || trouble.code);
  const said = trouble.said && `${trouble.request && "The service says: "}${trouble.said.replace(/\.?$/, ".")} `;
  const wait = trouble.wait ? `It asks for a pause of ${count(trouble.wait, "second")}. ` : "";
  $("trouble-what").textContent = what;
  $("trouble-next").textContent = next;
  $("trouble-said").textContent = `${said}${wait}(${trouble.code}${trouble.request && `, request ${trouble.request}`})`;
  $("retry").hidden = !(clip && again && (clip.audio || clip.job));
  $("trouble").hidden = false;
  offerAgain();
}

function settle() {
  $("trouble").hidden = true;
  offerAgain();
}

// --- a clip and its transcript ----------------------------------------------------------------

async function take(blob, name, live = false) {
  settle();
  if (blob.size > MAX_JOB_BYTES) {
    const message = `${name} has ${megabytes(blob.size)}; the limit is ${megabytes(MAX_JOB_BYTES)}`;
    return complain(new Trouble("too_large", { message }));
  }
  forget();
  clip = { audio: blob, name, buffer: null };
  const mine = clip;
  $("name").textContent = live ? "Your recording" : name;
  const asking = ask(mine);
  const buffer = await decode(blob);
  if (clip !== mine) return asking;
  mine.buffer = buffer;
  load(live && buffer ? wav(buffer) : blob);
  if (buffer) {
    band.show((bars) => levels(buffer, bars));
    length(buffer.duration);
  }
  ink();
  return asking;
}

function forget() {
  unload();
  if (clip) leaveJob(clip);
  [clip, transcript] = [null, null];
  show([]);
  $("name").textContent = $("facts").textContent = $("limit").textContent = "";
  $("transcript").hidden = $("take").hidden = true;
  band.clear();
}

async function ask(mine) {
  settle();
  const stopper = new AbortController();
  stopAsking = () => stopper.abort();
  if (!mine.job || mine.ended) mine.asked = choices();
  transcript = null;
  show([]);
  $("transcript").hidden = $("take").hidden = true;
  rest();
  enter("working", "Sending…");
  $("progress").hidden = false;
  if (mine.ended) leaveJob(mine);
  try {
    finish(await hear(mine, listener(), stopper.signal));
    mine.ended = Boolean(mine.job);
  } catch (error) {
    await giveUp(error, mine);
  } finally {
    stopAsking = null;
  }
}

// What is told while a clip is sent and heard.
function listener() {
  const heard = [];
  return {
    sent(fraction) {
      $("progress").value = fraction;
      $("progress").hidden = fraction === 1;
      if (!heard.length) say(fraction === 1 ? "Listening…" : "Sending…");
    },
    segment(segment) {
      heard.push(segment);
      show(heard);
    },
    progress(fraction, status) {
      $("progress").setAttribute("aria-label", "Heard");
      $("progress").hidden = false;
      if (fraction) $("progress").value = fraction;
      else $("progress").removeAttribute("value"); // how long it is in all is not known yet
      $("percent").textContent = fraction ? `${Math.floor(fraction * 100)} % heard` : "";
      say(status === "queued" ? "Waiting for a worker…" : "Listening… You may reload this page meanwhile.");
    },
    away: () => say("The service cannot be reached now. This page asks again."),
  };
}

// Heard on one line, if it is short enough; else as a job, which outlives the line and this page.
async function hear(mine, on, signal) {
  $("progress").setAttribute("aria-label", "Upload");
  if (!mine.job && mine.audio.size <= MAX_BYTES) {
    try {
      return await transcribe(mine.audio, mine.name, mine.asked, on, signal);
    } catch (error) {
      if (!["audio_too_long", "too_large"].includes(error.code)) throw error;
    }
  }
  mine.job ??= await submit(mine.audio, mine.name, mine.asked, on, signal);
  on.progress(0, "queued");
  memory.set({ id: mine.job, name: mine.name, asked: mine.asked });
  return follow(mine.job, on, signal);
}

function leaveJob(mine) {
  if (!mine.job) return;
  memory.forget();
  drop(mine.job); // cancelled and erased there, if it can be told
  mine.job = null;
  mine.ended = false;
}

// Goes on with the job that this tab looked at before it was loaded anew.
function resume({ id, name, asked }) {
  clip = { audio: null, name, buffer: null, asked, hopeless: true, job: id };
  $("name").textContent = name;
  document.body.classList.add("mute"); // the sound is not here any more
  ask(clip);
}

function finish(reply) {
  transcript = reply;
  show(reply.segments);
  $("transcript").hidden = $("take").hidden = false;
  $("nothing").hidden = reply.segments.length > 0;
  $("copy").parentElement.hidden = reply.segments.length === 0;
  if (!(Number($("seek").max) > 0)) length(reply.duration);
  const sure = clip.asked.language ? null : reply.language_probability;
  const share = sure === null ? "" : ` (${Math.round(sure * 100)} % sure)`;
  const facts = [
    reply.language && `${languageName(reply.language)}${share}`,
    `${reply.duration.toFixed(1)} s of audio`,
    reply.cache_hit ? "known from before" : `heard in ${reply.timings.total.toFixed(1)} s`,
    `model ${reply.model.name}`,
  ];
  $("facts").textContent = facts.filter(Boolean).join(" · ");
  $("warnings").replaceChildren(...reply.warnings.map((words) => Object.assign(document.createElement("li"), { textContent: words })));
  enter("result", reply.segments.length ? `Done: ${count(reply.text.split(/\s+/).filter(Boolean).length, "word")}.` : "Done.");
  band.inked(1);
}

async function giveUp(error, mine) {
  const cancelled = error.code === "cancelled";
  const again = explain(error.code ?? "").again;
  if (cancelled || !again || ["failed", "job_not_found"].includes(error.code)) leaveJob(mine);
  mine.hopeless = !again || !(mine.audio || mine.job);
  if (cancelled && !mine.audio) return forget(), enter("empty", "Cancelled.");
  enter("held", cancelled ? "Cancelled. Your recording is still here." : "Not transcribed.");
  if (cancelled) return;
  if (error.code === "unauthorized" && (await askForKey())) await ask(mine);
  else complain(error);
}

// The lines, and as much ink as there are words for.
function show(segments) {
  write(segments);
  if (segments.length) $("transcript").hidden = false;
  ink();
}

function ink() {
  const seconds = clip?.buffer?.duration ?? transcript?.duration;
  if (seconds) band.inked(transcript ? 1 : heardUntil() / seconds);
}

// --- recording --------------------------------------------------------------------------------

let starting = false;

async function startRecording() {
  if (starting) return;
  settle();
  rest();
  starting = true; // the browser may be asking; a disabled button would lose the focus
  try {
    recording = await record(MAX_SECONDS);
  } catch (error) {
    return complain(error);
  } finally {
    starting = false;
  }
  forget();
  const mine = recording;
  mine.ended.then(() => recording === mine && stopRecording()); // at the limit, or where the microphone is pulled out
  $("limit").textContent = ` / ${clock(MAX_SECONDS)}`;
  enter("recording", "Recording. Speak now.");
  watch(mine, [], performance.now());
}

// Ten bars a second, four where motion is not wanted.
function watch(mine, heights, loud) {
  if (recording !== mine) return;
  const level = mine.level();
  heights.push(level);
  band.show((bars) => heights.slice(-bars));
  $("clock").textContent = clock(mine.seconds());
  const silent = level > 0.05 ? 0 : performance.now() - loud;
  say(silent > 4000 ? "Nothing to be heard. Is this the right microphone?" : "Recording. Speak now.");
  setTimeout(watch, STILL.matches ? 250 : 100, mine, heights, silent ? loud : performance.now());
}

async function stopRecording() {
  const mine = recording;
  recording = null;
  if (!mine) return;
  const { audio: blob, name } = await mine.stop();
  await take(blob, name, true);
}

async function cancel() {
  if (state() === "working") return stopAsking?.();
  const mine = recording;
  recording = null;
  await mine?.discard();
  forget();
  enter("empty", "Discarded.");
}

// --- files ------------------------------------------------------------------------------------

const busy = () => ["recording", "working"].includes(state());

function pick([file]) {
  if (file && !busy()) take(file, file.name);
}

$("file").addEventListener("change", ({ target }) => {
  pick(target.files);
  target.value = ""; // so that the same file may be chosen again
});
const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
let depth = 0;
for (const [event, step] of [["dragenter", 1], ["dragleave", -1]]) addEventListener(event, (drag) => {
  if (!carriesFiles(drag)) return;
  depth += step;
  document.body.classList.toggle("dropping", depth > 0 && !busy());
});
addEventListener("dragover", (drag) => carriesFiles(drag) && drag.preventDefault());
addEventListener("drop", (drag) => {
  if (!carriesFiles(drag)) return;
  drag.preventDefault();
  depth = 0;
  document.body.classList.remove("dropping");
  pick(drag.dataTransfer.files);
});

$("record").addEventListener("click", startRecording);
$("stop").addEventListener("click", stopRecording);
$("cancel").addEventListener("click", cancel);
for (const id of ["again", "retry"]) $(id).addEventListener("click", () => clip && ask(clip));
$("dismiss").addEventListener("click", settle);
addEventListener("keydown", ({ key: pressed }) => {
  if (pressed === "Escape" && !$("key").open && (recording || stopAsking)) cancel();
});
for (const id of ["language", "model"]) $(id).addEventListener("change", offerAgain);

// --- taking away ------------------------------------------------------------------------------

$("copy").addEventListener("click", async () => {
  const copied = (await navigator.clipboard?.writeText(transcript.text).then(() => true, () => false)) || copyBySelecting();
  say(copied ? "Copied." : "The browser does not let this page copy. Mark the text and copy it with the keyboard.");
});

// The old way; the new one is only there over https and on localhost.
function copyBySelecting() {
  const field = document.body.appendChild(document.createElement("textarea"));
  field.value = transcript.text;
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  $("copy").focus();
  return copied;
}

for (const button of document.querySelectorAll("[data-format]")) button.addEventListener("click", () => {
  const { type, write: written } = FORMATS[button.dataset.format];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([written(transcript)], { type }));
  link.download = `${clip.name.replace(/\.[^.]*$/, "")}.${button.dataset.format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  say(`Saved as ${link.download}.`);
});

enter("empty", `Record up to ${span(MAX_SECONDS)}, or choose a file of up to ${span(MAX_JOB_SECONDS)} and ${megabytes(MAX_JOB_BYTES)}.`);
lookAround(true).then(() => state() === "empty" && memory.get() && resume(memory.get()));
