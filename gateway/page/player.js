// The transcript's lines and the sound behind them: what plays is marked, and what is clicked plays.

import { band } from "./ribbon.js";
import { clock } from "./words.js";

const $ = (id) => document.getElementById(id);
const audio = $("audio");

// --- lines ------------------------------------------------------------------------------------

let written = [];

// Seconds of the recording that there are words for.
export const heardUntil = () => written.at(-1)?.end ?? 0;

// Only what is new or different touches the page, so that a screen reader is told each line once.
export function write(segments) {
  const list = $("segments");
  while (list.children.length > segments.length) list.lastChild.remove();
  segments.forEach((segment, at) => {
    const line = list.children[at] ?? list.appendChild(blank());
    const [time, text] = line.firstChild.children;
    if (time.textContent !== clock(segment.start)) time.textContent = clock(segment.start);
    if (text.textContent !== segment.text.trim()) text.textContent = segment.text.trim();
  });
  written = segments;
  mark();
}

function blank() {
  const line = document.createElement("li");
  const button = line.appendChild(Object.assign(document.createElement("button"), { type: "button", className: "segment" }));
  button.append(document.createElement("time"), document.createElement("span"));
  return line;
}

// --- sound ------------------------------------------------------------------------------------

export function load(blob) {
  mute(false);
  audio.src = URL.createObjectURL(blob);
}

export function unload() {
  rest();
  mute(false);
  if (audio.src) URL.revokeObjectURL(audio.src);
  audio.removeAttribute("src");
  audio.load(); // lets go of the old sound, and of where it stood
  $("seek").hidden = true;
  $("seek").max = 0;
}

export function rest() {
  audio.pause();
}

export function length(seconds) {
  $("seek").max = seconds;
  $("limit").textContent = ` / ${clock(seconds)}`;
  $("clock").textContent = clock(audio.currentTime);
}

function mark() {
  const now = audio.currentTime;
  const within = audio.paused && !now ? -1 : written.findLastIndex(({ start }) => start <= now + 0.01);
  const current = within >= 0 && now < written[within].end ? within : -1;
  [...$("segments").children].forEach((line, at) => {
    if (at === current) line.firstChild.setAttribute("aria-current", "true"); // empty would mean that it is not
    else line.firstChild.removeAttribute("aria-current");
    line.firstChild.classList.toggle("playing", at === current && !audio.paused);
  });
  const seconds = Number($("seek").max) || audio.duration;
  band.played(seconds > 0 ? now / seconds : 0);
  $("seek").value = now;
  $("seek").setAttribute("aria-valuetext", `${clock(now)} of ${clock(seconds || 0)}`);
  if (document.body.dataset.state !== "recording") $("clock").textContent = clock(now);
}

let following = null;

function follow() {
  clearTimeout(following);
  mark();
  if (!audio.paused) following = setTimeout(follow, 50);
}

async function play(from) {
  if (from !== undefined) audio.currentTime = from;
  try {
    await audio.play();
  } catch (error) {
    if (error.name !== "AbortError") mute();
  }
}

function mute(silent = true) {
  document.body.classList.toggle("mute", silent);
  $("mute").hidden = !silent;
}

audio.addEventListener("error", () => audio.hasAttribute("src") && mute());
audio.addEventListener("loadedmetadata", () => {
  if (Number.isFinite(audio.duration)) length(audio.duration);
  $("seek").hidden = false;
});
for (const event of ["play", "pause", "ended", "emptied"]) audio.addEventListener(event, () => {
  $("play").lastElementChild.textContent = audio.paused ? "Play" : "Pause";
  $("play").classList.toggle("pauses", !audio.paused);
  follow();
});
audio.addEventListener("seeked", mark);

$("play").addEventListener("click", () => (audio.paused ? play() : audio.pause()));
$("seek").addEventListener("input", () => (audio.currentTime = Number($("seek").value)));
$("segments").addEventListener("click", ({ target }) => {
  const line = target.closest("li");
  if (!line || document.body.classList.contains("mute")) return;
  const at = [...$("segments").children].indexOf(line);
  if (line.firstChild.classList.contains("playing")) audio.pause();
  else play(written[at].start);
});
$("segments").addEventListener("keydown", (event) => {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  const other = step && event.target.closest("li")?.[step];
  if (!other) return;
  event.preventDefault();
  other.firstChild.focus();
});
