import { expect, test } from "vitest";
import type { Segment, TranscriptReply } from "@/lib/bus-worker";
import { fromReply } from "@/lib/transcript";
import reply from "./reply.json";

test("the gateway's reply becomes the app's transcript", () => {
  expect(fromReply(reply satisfies TranscriptReply)).toEqual({
    transcript: "The train leaves at nine. Please bring the tickets.",
    confidence: 0.745,
    language: "en",
    segments: [
      { start: 0, end: 2.4, text: "The train leaves at nine.", confidence: 0.819 },
      { start: 3.1, end: 5.2, text: "Please bring the tickets.", confidence: 0.67 },
    ],
    provider: "whisper",
    durationMs: 5204,
  });
});

test("where nothing was heard there is no confidence in it", () => {
  const nothing = fromReply({ ...reply, text: "", segments: [], confidence: null, language: null });
  expect(nothing).toMatchObject({ transcript: "", confidence: 0, language: null, segments: [] });
});

test("no confidence leaves 0 to 1, whatever the model says", () => {
  const [first] = reply.segments as [Segment];
  const segments = [0.2, -1e9, NaN].map((confidence) => ({ ...first, confidence }));
  const mapped = fromReply({ ...reply, segments, confidence: 1.0001 });
  expect([mapped.confidence, ...mapped.segments.map(({ confidence }) => confidence)]).toEqual([1, 1, 0, 0]);
});
