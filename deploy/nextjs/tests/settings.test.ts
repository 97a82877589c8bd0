import { mkdtemp, writeFile } from "node:fs/promises";
import { readFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect, test, vi } from "vitest";
import { BadSetting, readPercent, readSettings, VARIABLES } from "@/lib/settings";

const ROOT = path.resolve(import.meta.dirname, "..");

test("without any variable the app asks a service on this machine, for everybody", () => {
  expect(readSettings({})).toMatchObject({ url: "http://localhost:8000", apiKey: "", provider: "whisper", percent: 100, maxDuration: 30, maxBytes: 10_485_760 });
});

test.each([
  [{ TRANSCRIPTION_ROLLOUT_PERCENT: "ten" }, 'TRANSCRIPTION_ROLLOUT_PERCENT is "ten"; it must be a number from 0 to 100'],
  [{ TRANSCRIPTION_ROLLOUT_PERCENT: "101" }, "TRANSCRIPTION_ROLLOUT_PERCENT"],
  [{ NEXT_PUBLIC_TRANSCRIPTION_PROVIDER: "Whisper" }, "must be whisper or webspeech"],
  [{ BUS_WORKER_URL: "localhost:8000" }, "BUS_WORKER_URL"],
  [{ BUS_WORKER_URL: "http://stt.example/#base" }, "BUS_WORKER_URL"],
  [{ BUS_WORKER_URL: "http://:sesame@stt.example/" }, "BUS_WORKER_URL"],
  [{ BUS_WORKER_TIMEOUT: "0" }, "BUS_WORKER_TIMEOUT"],
  [{ MAX_FILE_SIZE: "10MB" }, "MAX_FILE_SIZE"],
])("%j is refused in one sentence", (environment, words) => {
  expect(() => readSettings(environment)).toThrow(BadSetting);
  expect(() => readSettings(environment)).toThrow(words);
});

test("an empty variable counts as not set, and a slash at the address's end as not there", () => {
  const { url, percent } = readSettings({ BUS_WORKER_URL: "https://stt.example/base/", TRANSCRIPTION_ROLLOUT_PERCENT: "" });
  expect([url, percent]).toEqual(["https://stt.example/base", 100]);
});

test("a file changes the percentage without a restart, and nobody is in where it cannot be read", async () => {
  const file = path.join(await mkdtemp(path.join(os.tmpdir(), "rollout-")), "percent");
  const settings = readSettings({ TRANSCRIPTION_ROLLOUT_FILE: file, TRANSCRIPTION_ROLLOUT_PERCENT: "50" });
  const told = vi.spyOn(console, "error").mockImplementation(() => undefined);
  const start = Date.now();
  expect(await readPercent(settings, start)).toBe(0);
  expect(told).toHaveBeenCalledOnce();
  await writeFile(file, "12.5\n");
  expect(await readPercent(settings, start + 1000)).toBe(0);
  expect(await readPercent(settings, start + 5000)).toBe(12.5);
  await writeFile(file, "all of them");
  expect(await readPercent(settings, start + 10_000)).toBe(0);
});

test("the README and .env.example list every variable with its default", () => {
  const readme = readFileSync(path.join(ROOT, "README.md"), "utf8");
  const rows = [...readme.matchAll(/^\| `([A-Z_]+)` \| (?:`(.*?)`)? *\| (.*) \|$/gm)].map(([, name, value, about]) => [name, value ?? "", about]);
  expect(rows).toEqual(Object.entries(VARIABLES).map(([name, one]) => [name, one.default, one.about]));
  const example = readFileSync(path.join(ROOT, ".env.example"), "utf8");
  const lines = [...example.matchAll(/^# (.*)\n#([A-Z_]+)=(.*)$/gm)].map(([, about, name, value]) => [name, value, about]);
  expect(lines).toEqual(rows);
});
