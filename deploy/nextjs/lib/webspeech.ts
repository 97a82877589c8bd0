// The browser's own speech recognition as a provider, behind the same interface as the speech service.

import { Trouble, type Code } from "@/lib/errors";
import type { Listen } from "@/lib/session";
import type { Transcript, TranscriptSegment } from "@/lib/transcript";

/** What we use of the Web Speech API, which TypeScript's library does not describe. */
interface Recognition extends EventTarget {
  continuous: boolean;
  interimResults: boolean;
  lang: string;
  start(): void;
  stop(): void;
  abort(): void;
  onstart: (() => void) | null;
  onresult: ((event: { results: ArrayLike<Result> }) => void) | null;
  onerror: ((event: { error: string }) => void) | null;
  onend: (() => void) | null;
}

interface Result extends ArrayLike<{ transcript: string; confidence: number }> {
  isFinal: boolean;
}

const CODES: Readonly<Record<string, Code>> = {
  "no-speech": "speech_nothing",
  "audio-capture": "microphone_missing",
  "not-allowed": "microphone_refused",
  "service-not-allowed": "speech_unsupported",
  "language-not-supported": "speech_unsupported",
  network: "speech_network",
};

function recognition(): (new () => Recognition) | undefined {
  const scope = globalThis as { SpeechRecognition?: new () => Recognition; webkitSpeechRecognition?: new () => Recognition };
  return scope.SpeechRecognition ?? scope.webkitSpeechRecognition;
}

export function canListen(): boolean {
  return recognition() !== undefined;
}

export const listen: Listen = ({ maxDuration, language }, tell) => {
  const Recogniser = recognition();
  if (!Recogniser) {
    queueMicrotask(() => tell({ kind: "failed", trouble: new Trouble("speech_unsupported") }));
    return { stop: () => undefined, cancel: () => undefined, level: () => null };
  }
  const hearing = new Recogniser();
  const segments: TranscriptSegment[] = [];
  let code: Code | undefined;
  let atLimit = false;
  let began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  let limit: ReturnType<typeof setTimeout> | undefined;

  hearing.continuous = true;
  hearing.interimResults = true;
  hearing.lang = language ?? navigator.language;
  hearing.onstart = () => {
    began = performance.now(); // not before: the browser may ask for the microphone for as long as it likes
    limit = setTimeout(() => {
      atLimit = true;
      hearing.stop();
    }, maxDuration * 1000);
    tell({ kind: "recording" });
  };
  hearing.onresult = ({ results }) => tell({ kind: "partial", text: readResults(Array.from(results), segments, seconds()) });
  hearing.onerror = ({ error }) => (code = CODES[error] ?? "speech_failed");
  hearing.onend = () => {
    clearTimeout(limit);
    tell({ kind: "recorded", audio: null, atLimit });
    if (segments.length) tell({ kind: "done", transcript: whole(segments, hearing.lang, seconds()) });
    else tell({ kind: "failed", trouble: new Trouble(code ?? "speech_nothing") });
  };
  try {
    hearing.start();
  } catch (cause) {
    queueMicrotask(() => tell({ kind: "failed", trouble: new Trouble("speech_failed", { cause }) }));
  }
  return {
    stop: () => hearing.stop(),
    cancel: () => {
      clearTimeout(limit);
      hearing.onend = hearing.onresult = hearing.onerror = hearing.onstart = null;
      hearing.abort();
    },
    level: () => null,
  };
};

/** All text so far; results that are final become segments, which end when they are told: the API gives no times. */
function readResults(results: readonly Result[], segments: TranscriptSegment[], now: number): string {
  const finals = results.filter((result) => result.isFinal);
  for (const result of finals.slice(segments.length)) {
    const text = result[0]?.transcript.trim() ?? "";
    segments.push({ start: round(segments.at(-1)?.end ?? 0), end: round(now), text, confidence: round(result[0]?.confidence ?? 0) });
  }
  const interim = results.filter((result) => !result.isFinal).map((result) => result[0]?.transcript.trim() ?? "");
  return [...segments.map(({ text }) => text), ...interim].join(" ").trim();
}

function whole(segments: TranscriptSegment[], lang: string, seconds: number): Transcript {
  return {
    transcript: segments.map(({ text }) => text).join(" ").trim(),
    confidence: round(segments.reduce((sum, { confidence }) => sum + confidence, 0) / segments.length),
    language: lang.split("-")[0] || null,
    segments,
    provider: "webspeech",
    durationMs: Math.round(seconds * 1000),
  };
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}
