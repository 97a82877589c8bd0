import { describe, expect, test } from "vitest";
import { inRollout, place } from "@/lib/rollout";

const USERS = Array.from({ length: 10_000 }, (_, at) => `user-${at}`);
const UUIDS = Array.from({ length: 10_000 }, () => crypto.randomUUID());

describe.each([
  ["numbered ids", USERS],
  ["random ids", UUIDS],
])("of 10 000 users with %s", (_, users) => {
  test.each([0, 0.5, 1, 10, 50, 99, 100])("%d %% are in the rollout", (percent) => {
    const share = (users.filter((user) => inRollout(user, percent)).length / users.length) * 100;
    const deviation = Math.sqrt((percent * (100 - percent)) / users.length);
    expect(Math.abs(share - percent)).toBeLessThanOrEqual(5 * deviation);
  });

  test("nobody who is in falls out as the percentage grows", () => {
    const steps = [0, 1, 2, 5, 10, 25, 50, 75, 90, 99, 99.99, 100];
    for (const user of users) {
      const sides = steps.map((percent) => inRollout(user, percent));
      expect(sides).toEqual([...sides].sort((a, b) => Number(a) - Number(b)));
    }
  });
});

test("a user's place is the same in every release: these may not change", () => {
  expect([place(""), place("user-1"), place("user-2"), place("Zoë 🎙")]).toEqual([28.72, 3.17, 96.55, 32.25]);
});
