// The service as the top of the page tells of it: how it is, what it offers, and the key it may want.

import { Trouble, health, key } from "./ask.js";
import { LANGUAGES, count } from "./words.js";

const $ = (id) => document.getElementById(id);

// --- what may be chosen -----------------------------------------------------------------------

export const choices = () => ({ language: $("language").value, model: $("model").value });

const option = ([value, words]) => new Option(words, value);

function listLanguages() {
  const near = new Set(navigator.languages.map((tag) => tag.split("-")[0]));
  const yours = LANGUAGES.filter(([code]) => near.has(code));
  const group = (label, languages) => {
    const element = Object.assign(document.createElement("optgroup"), { label });
    element.append(...languages.map(option));
    return element;
  };
  if (yours.length) $("language").append(group("Yours", yours));
  $("language").append(group("All", LANGUAGES.filter(([code]) => !near.has(code))));
}

function listModels(served) {
  const chosen = $("model").value;
  const models = chosen && !served.includes(chosen) ? [...served, chosen] : served;
  const listed = [...$("model").options].slice(1).map(({ value }) => value);
  if (models.join() === listed.join()) return;
  $("model").replaceChildren(new Option("Default", ""), ...models.map((model) => new Option(model, model)));
  $("model").value = chosen;
}

// --- how it is --------------------------------------------------------------------------------

let trouble = "";

// Why the service cannot serve, as far as is known: an error's code, or "".
export const outage = () => trouble;

// Why it cannot serve ("" when it can), and how that is said at the top of the page.
function mood(why, words, kind = why ? "bad" : "good") {
  trouble = why;
  $("service").dataset.mood = kind;
  if ($("service-words").textContent !== words) $("service-words").textContent = words;
}

let looking = null;

// How the service is; asked at the start, after an error, and now and then while somebody looks.
export async function lookAround(first = false) {
  try {
    const { status, bus, models, workers, problems } = await health();
    listModels(models);
    if (bus === "away") mood("bus_stopped", "The bus has stopped");
    else if (!workers.length) mood("no_worker", "No worker is running");
    else if (status === "healthy") mood("", `Ready: ${count(workers.length, "worker")}`);
    else mood("", `Ready, but ${problems[0]}`, "uneasy");
  } catch (error) {
    if (!(error instanceof Trouble)) throw error;
    if (error.code !== "unauthorized") return mood(error.code, "The service does not answer");
    $("docs").hidden = true; // a link carries no key
    if (first && (await askForKey())) return lookAround(first);
    mood(error.code, "Needs a key");
  } finally {
    clearTimeout(looking);
    looking = setTimeout(() => document.hidden || lookAround(), 30_000);
  }
}
document.addEventListener("visibilitychange", () => document.hidden || lookAround());

// --- the key ----------------------------------------------------------------------------------

// Whether a key was given.
export function askForKey() {
  const dialog = $("key");
  $("key-words").textContent = key.get()
    ? "The key that you gave was not accepted. Perhaps a letter is missing?"
    : "Its operator can give you one. It is kept until you close this tab.";
  key.forget();
  $("key-value").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      if (dialog.returnValue === "given") key.set($("key-value").value.trim());
      $("key-value").value = "";
      resolve(key.get() !== "");
    }, { once: true });
  });
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  $("key").close("given");
});
$("key-later").addEventListener("click", () => $("key").close(""));

listLanguages();
