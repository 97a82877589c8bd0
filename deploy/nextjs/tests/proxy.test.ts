import { unstable_doesMiddlewareMatch as passes } from "next/experimental/testing/server";
import { expect, test } from "vitest";
import { config } from "@/proxy";

test.each([
  ["a page", "/", {}, true],
  ["a page with an override", "/?transcription=auto", {}, true],
  ["a body of known length", "/", { "content-length": "5000000" }, false],
  ["a body of any length", "/", { "transfer-encoding": "chunked" }, false],
  ["a recording", "/api/transcribe", {}, false],
])("the proxy keeps no body in memory: %s", (_, url, headers, wanted) => {
  expect(passes({ config, url, headers })).toBe(wanted);
});
