import { readFileSync } from "node:fs";
import path from "node:path";
import openapiTS, { astToString, COMMENT_HEADER } from "openapi-typescript";
import { expect, test } from "vitest";

const LIB = path.resolve(import.meta.dirname, "../lib");

test("lib/gateway.ts is what openapi-typescript makes of lib/openapi.json: npm run api-types", async () => {
  const made = await openapiTS(readFileSync(path.join(LIB, "openapi.json"), "utf8"));
  expect(readFileSync(path.join(LIB, "gateway.ts"), "utf8")).toBe(COMMENT_HEADER + astToString(made));
});
