import { afterEach, expect, test, vi } from "vitest";
import type { Told } from "@/lib/session";
import { listen } from "@/lib/webspeech";

interface Result {
  words: string;
  final: boolean;
}

/** The browser's recogniser, told by the test what happens to it. */
class Recogniser {
  static last: Recogniser;
  lang = "";
  onstart: (() => void) | null = null;
  onresult: ((event: unknown) => void) | null = null;
  onerror: ((event: { error: string }) => void) | null = null;
  onend: (() => void) | null = null;
  stop = vi.fn(() => this.onend?.());
  abort = vi.fn(() => this.onend?.());

  constructor() {
    Recogniser.last = this;
  }

  start(): void {
    this.onstart?.();
  }

  hears(...results: Result[]): void {
    this.onresult?.({ results: results.map(({ words, final }) => Object.assign([{ transcript: words, confidence: 0.8 }], { isFinal: final })) });
  }
}

function begin(maxDuration = 30): { told: Told[]; session: ReturnType<typeof listen>; recogniser: Recogniser } {
  vi.stubGlobal("SpeechRecognition", Recogniser);
  const told: Told[] = [];
  const session = listen({ maxDuration, language: "en-GB" }, (one) => told.push(one));
  return { told, session, recogniser: Recogniser.last };
}

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

test("words become partial text, and what is final the transcript", () => {
  const { told, session, recogniser } = begin();
  recogniser.hears({ words: "one", final: false });
  recogniser.hears({ words: "one", final: true }, { words: " tw", final: false });
  recogniser.hears({ words: "one", final: true }, { words: " two", final: true });
  session.stop();
  expect(told.filter(({ kind }) => kind === "partial")).toEqual(["one", "one tw", "one two"].map((text) => ({ kind: "partial", text })));
  expect(told.map(({ kind }) => kind)).toEqual(["recording", "partial", "partial", "partial", "recorded", "done"]);
  expect(told.at(-1)).toMatchObject({ transcript: { transcript: "one two", confidence: 0.8, language: "en", provider: "webspeech", segments: [{ text: "one" }, { text: "two" }] } });
});

test.each([
  ["not-allowed", "microphone_refused"],
  ["audio-capture", "microphone_missing"],
  ["network", "speech_network"],
  ["no-speech", "speech_nothing"],
  ["something new", "speech_failed"],
])("%s is told as %s", (error, code) => {
  const { told, recogniser } = begin();
  recogniser.onerror?.({ error });
  recogniser.onend?.();
  expect(told.at(-1)).toMatchObject({ kind: "failed", trouble: { code } });
});

test("it ends at the limit, and after cancelling nothing is told", () => {
  vi.useFakeTimers();
  const { told, recogniser } = begin(3);
  recogniser.hears({ words: "one", final: true });
  vi.advanceTimersByTime(3000);
  expect(recogniser.stop).toHaveBeenCalledOnce();
  expect(told).toContainEqual({ kind: "recorded", audio: null, atLimit: true });
  const other = begin();
  other.session.cancel();
  vi.advanceTimersByTime(60_000);
  expect(other.recogniser.abort).toHaveBeenCalledOnce();
  expect(other.told.map(({ kind }) => kind)).toEqual(["recording"]);
});

test("the limit counts from when the microphone is open, however long the browser asked for it", () => {
  vi.useFakeTimers();
  const opened = vi.spyOn(Recogniser.prototype, "start").mockImplementation(() => undefined);
  const { told, recogniser } = begin(3);
  vi.advanceTimersByTime(10_000);
  expect(told).toEqual([]);
  opened.mockRestore();
  recogniser.start();
  vi.advanceTimersByTime(2999);
  expect(recogniser.stop).not.toHaveBeenCalled();
  vi.advanceTimersByTime(1);
  expect(recogniser.stop).toHaveBeenCalledOnce();
});

test("a browser without recognition says so", async () => {
  const told: Told[] = [];
  listen({ maxDuration: 1 }, (one) => told.push(one));
  await Promise.resolve();
  expect(told).toMatchObject([{ kind: "failed", trouble: { code: "speech_unsupported" } }]);
});
