import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { APP_FAILURES, failure, GATEWAY_FAILURES, Trouble, troubleOf } from "@/lib/errors";

/** The gateway's own list; beside this sample where it lies in bus-worker's tree, absent where it was copied elsewhere. */
const TREE = path.resolve(import.meta.dirname, "../../../bus_worker/errors.py");

test.skipIf(!existsSync(TREE))("every code of the gateway has a sentence, and asks again where the gateway says it may help", () => {
  const rows = [...readFileSync(TREE, "utf8").matchAll(/^ +[│ ]+[├└]── \w+ +([a-z_]+) +(\d{3})(, again)?$/gm)];
  expect(rows.length).toBeGreaterThan(15);
  expect(Object.keys(GATEWAY_FAILURES).sort()).toEqual(rows.map(([, code]) => code).sort());
  for (const [, code, status, again] of rows) {
    const mine = failure(code ?? "");
    expect([code, [Number(status), 502]]).toEqual([code, expect.arrayContaining([mine.status])]);
    if (again) expect([code, mine.retry]).toEqual([code, true]);
  }
});

test.each(Object.entries({ ...GATEWAY_FAILURES, ...APP_FAILURES }))("%s is said in sentences", (_, { sentence, next }) => {
  for (const words of [sentence, next]) expect(words).toMatch(/^[A-Z].*[a-z]\.$/);
});

test("a code that a newer gateway sends is an error all the same", () => {
  expect(failure("brand_new")).toBe(APP_FAILURES.unknown);
  expect(failure("constructor")).toBe(APP_FAILURES.unknown);
});

test("an error crosses from server to browser whole", () => {
  const trouble = new Trouble("busy", { requestId: "abc", retryAfter: 2 });
  const read = troubleOf(JSON.parse(JSON.stringify(trouble.toBody())), "no_answer");
  expect(read).toMatchObject({ code: "busy", requestId: "abc", retryAfter: 2, message: GATEWAY_FAILURES.busy.sentence });
  expect(troubleOf("<html>", "no_answer").code).toBe("no_answer");
});
