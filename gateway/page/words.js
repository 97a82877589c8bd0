// What the page says: languages by name, and each way to fail as a sentence and a next step.

const CODES = `af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw
he hi hr ht hu hy id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no
oc pa pl ps pt ro ru sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo yue zh`;

const names = new Intl.DisplayNames(["en"], { type: "language" });

export function languageName(code) {
  return code === "tl" ? "Tagalog" : names.of(code); // elsewhere Tagalog goes by "Filipino"
}

// Every language that Whisper knows, as [code, English name], by name.
export const LANGUAGES = CODES.split(/\s+/)
  .map((code) => [code, languageName(code)])
  .sort((a, b) => a[1].localeCompare(b[1], "en"));

// code: [what happened, what to do next]
const SENTENCES = {
  bad_request: ["The service did not understand this request.", "Reload the page: it may be older than the service."],
  bad_audio: ["This file could not be read as audio.", "Try a recording in a common format: wav, mp3, m4a, ogg, flac or webm."],
  audio_too_short: ["There is hardly any sound in this.", "Record a little longer, and try again."],
  audio_too_long: ["This recording is longer than the service takes.", "Send a shorter piece of it."],
  unauthorized: ["The service did not accept the key.", "Enter the API key that its operator gave you."],
  model_not_found: ["No worker has this model now.", "Choose another model, and try again."],
  job_not_found: ["The service knows nothing of this recording any more.", "Send it again."],
  idempotency_conflict: ["The service was sent something else under the same key.", "Send the recording again."],
  not_found: ["The service does not know this address.", "Reload the page: it may be older than the service."],
  method_not_allowed: ["The service does not know this kind of request.", "Reload the page: it may be older than the service."],
  request_timeout: ["The audio arrived too slowly, so the service stopped waiting.", "Try again on a faster connection, or with a shorter recording."],
  claim_expired: ["The audio had been erased before a worker could hear it.", "Send it again."],
  too_large: ["This file is larger than the service takes.", "Send a shorter piece, or save it in a smaller format such as mp3 or opus."],
  rate_limited: ["Too many requests are running with this key.", "Wait until one has finished, and try again."],
  cancelled: ["The request was cancelled.", "Send the recording again whenever you like."],
  failed: ["The service failed on this recording. That is not your fault.", "Try again. If it fails once more, tell the operator the request number below."],
  busy: ["All workers are busy.", "Try again in a moment; your recording is still here."],
  stopping: ["The worker was just shutting down.", "Try again: another one takes over."],
  unavailable: ["No worker can be reached.", "Your recording is still here. Try again in a minute, or tell the operator."],
  deadline_exceeded: ["This took longer than the service allows.", "Try again when it is less busy, or with a shorter recording."],
  // What only the page can know:
  bus_stopped: ["The bus that carries audio to the workers has stopped.", "Your recording is still here. Try again in a minute, or tell the operator."],
  no_worker: ["No worker is running.", "Your recording is still here. Try again when the operator has started one."],
  no_answer: ["The service did not answer.", "Check your connection; perhaps the service has stopped. Your recording is still here."],
  cut_off: ["The answer broke off before its end.", "Try again; your recording is still here."],
  microphone_refused: ["The browser did not let this page use the microphone.", "Allow it in the address bar or in the browser's settings, then press Record again."],
  microphone_missing: ["No microphone was found.", "Plug one in, or choose a file instead."],
  microphone_insecure: ["Browsers lend the microphone only over https or on localhost.", "Open this page with https, or choose a file instead."],
  microphone_failed: ["The microphone could not be used.", "Perhaps another program holds it. Close that, or choose a file instead."],
};
const HOPELESS = new Set(["bad_audio", "audio_too_short", "audio_too_long", "too_large"]);

// An error as a person can read it. `again`: whether sending the same recording may help.
export function explain(code) {
  const [what, next] = SENTENCES[code] ?? ["Something went wrong that this page does not know.", "Try again, or tell the operator what it says below."];
  return { what, next, again: !HOPELESS.has(code) && !code.startsWith("microphone_") };
}

export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds + 1e-6));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const tail = String(rest).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

// A length of time in words.
export function span(seconds) {
  return seconds < 120 ? count(Math.round(seconds), "second") : seconds < 7200 ? count(Math.round(seconds / 60), "minute") : count(Math.round(seconds / 3600), "hour");
}

export function megabytes(bytes) {
  return `${Number((bytes / 1048576).toPrecision(2))} MB`;
}

export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
