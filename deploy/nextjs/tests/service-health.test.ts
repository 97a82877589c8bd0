import { afterEach, expect, test, vi } from "vitest";
import type { Health } from "@/lib/bus-worker";
import { problemOf, serviceProblem } from "@/lib/service-health";

const WELL: Health = { status: "healthy", version: "1", bus: "connected", cache: "up", models: ["base"], workers: [], problems: [] };

afterEach(() => {
  vi.unstubAllGlobals();
});

test("however many look at once, the gateway is asked once in a few seconds", async () => {
  const fetched = vi.fn(() => Promise.resolve(Response.json(WELL)));
  vi.stubGlobal("fetch", fetched);
  const connection = { url: "http://one.example", apiKey: "" };
  expect(new Set(await Promise.all(Array.from({ length: 1000 }, () => serviceProblem(connection))))).toEqual(new Set([null]));
  expect(fetched).toHaveBeenCalledOnce();
  await serviceProblem(connection, Date.now() + 10_000);
  expect(fetched).toHaveBeenCalledTimes(2);
});

test("a gateway that refuses or is not there is a problem with a sentence", async () => {
  vi.stubGlobal("fetch", () => Promise.resolve(Response.json({ error: { code: "unauthorized", message: "wrong" } }, { status: 401 })));
  expect(await serviceProblem({ url: "http://two.example", apiKey: "x" })).toBe("The speech service does not accept this app's key.");
  vi.stubGlobal("fetch", () => Promise.reject(new TypeError("fetch failed")));
  expect(await serviceProblem({ url: "http://three.example", apiKey: "x" })).toBe("The speech service does not answer.");
});

test.each([
  [404, { message: "no route matched" }],
  [200, { status: "ok" }],
])("what is not the gateway is no healthy service, whatever it answers (%d)", async (status, body) => {
  vi.stubGlobal("fetch", () => Promise.resolve(Response.json(body, { status })));
  expect(await serviceProblem({ url: `http://other-${status}.example`, apiKey: "" })).toBe("The speech service did not answer.");
});

test("only a service that cannot serve is a problem", () => {
  expect(problemOf({ ...WELL, status: "degraded", cache: "down" })).toBeNull();
  expect(problemOf({ ...WELL, status: "unhealthy", bus: "away" })).toMatch("bus");
  expect(problemOf({ ...WELL, status: "unhealthy" })).toMatch("No worker of the speech service is running.");
});
