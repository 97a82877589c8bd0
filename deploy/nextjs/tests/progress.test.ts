import { expect, test } from "vitest";
import { Trouble } from "@/lib/errors";
import { IDLE, reduce, type Action } from "@/lib/progress";
import type { Transcript } from "@/lib/transcript";

const audio = new Blob(["sound"]);
const transcript: Transcript = { transcript: "one two", confidence: 0.9, language: "en", segments: [], provider: "whisper", durationMs: 1000 };
const RECORDED: Action[] = [{ kind: "start", provider: "whisper" }, { kind: "recording" }, { kind: "recorded", audio, atLimit: true }];

function after(...actions: Action[]) {
  return actions.reduce(reduce, IDLE);
}

test("a recording becomes words, the partial ones first", () => {
  expect(after(...RECORDED, { kind: "partial", text: "one" })).toMatchObject({ phase: "hearing", partial: "one", transcript: null, atLimit: true });
  expect(after(...RECORDED, { kind: "done", transcript })).toMatchObject({ phase: "done", partial: "one two", transcript });
});

test("after trouble the recording is kept, and sent again it forgets the trouble", () => {
  const failed = after(...RECORDED, { kind: "partial", text: "one" }, { kind: "failed", trouble: new Trouble("busy") });
  expect(failed).toMatchObject({ phase: "failed", audio, trouble: { code: "busy" } });
  expect(reduce(failed, { kind: "send", audio })).toMatchObject({ phase: "hearing", audio, trouble: null, partial: "", atLimit: true });
});

test("who cancels keeps the recording; a new one forgets the old", () => {
  const cancelled = after(...RECORDED, { kind: "cancel" });
  expect(cancelled).toMatchObject({ phase: "idle", audio });
  expect(reduce(cancelled, { kind: "start", provider: "webspeech" })).toMatchObject({ audio: null, provider: "webspeech" });
});
