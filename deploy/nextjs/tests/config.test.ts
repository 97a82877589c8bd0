import { expect, test } from "vitest";
import { getTranscriptionProvider, type Situation } from "@/lib/config";
import { place } from "@/lib/rollout";

const USER = "user-1";
const USUAL: Situation = { configured: "whisper", percent: 100, userId: USER, override: null, problem: null };

function chosen(changed: Partial<Situation>): string {
  const { provider, reason } = getTranscriptionProvider({ ...USUAL, ...changed });
  return `${provider}: ${reason}`;
}

test("the configured provider hears everybody", () => {
  expect(chosen({})).toBe("whisper: configured");
  expect(chosen({ configured: "webspeech" })).toBe("webspeech: configured");
});

test("a percentage lets in those whose place it has passed, and no others", () => {
  expect(chosen({ percent: place(USER) + 0.01 })).toBe("whisper: rollout");
  expect(chosen({ percent: place(USER) })).toBe("webspeech: not_in_rollout");
  expect(chosen({ percent: 0 })).toBe("webspeech: not_in_rollout");
});

test("switched off is off for everybody, whatever the percentage", () => {
  expect(chosen({ configured: "webspeech", percent: 100 })).toBe("webspeech: configured");
});

test("an override goes before rollout and configuration", () => {
  expect(chosen({ override: "whisper", percent: 0 })).toBe("whisper: override");
  expect(chosen({ override: "whisper", configured: "webspeech" })).toBe("whisper: override");
  expect(chosen({ override: "webspeech" })).toBe("webspeech: override");
});

test("an unhealthy service hears nobody, and the reason is told", () => {
  for (const override of [null, "whisper"] as const) {
    const choice = getTranscriptionProvider({ ...USUAL, override, problem: "No worker is running." });
    expect(choice).toEqual({ provider: "webspeech", reason: "unhealthy", why: "No worker is running." });
  }
});

test("the service's health is nothing to those whom it does not hear", () => {
  expect(chosen({ percent: 0, problem: "gone" })).toBe("webspeech: not_in_rollout");
  expect(chosen({ override: "webspeech", problem: "gone" })).toBe("webspeech: override");
});
