// Every knob of this app, its default and its variable; read on the server, when it is asked for, not when it is built.

import { readFile } from "node:fs/promises";
import { isProvider } from "@/lib/config";
import type { Provider } from "@/lib/transcript";

/** Each variable with its default and what it is for; README.md and .env.example list the same. */
export const VARIABLES = {
  BUS_WORKER_URL: { default: "http://localhost:8000", about: "Where the gateway of bus-worker is." },
  BUS_WORKER_API_KEY: { default: "", about: "The gateway's API key, where it asks for one; it never leaves this server." },
  BUS_WORKER_TIMEOUT: { default: "65", about: "Seconds that one recording may take; a little more than the gateway's REQUEST_TIMEOUT, so that its own answer comes first." },
  MAX_AUDIO_DURATION: { default: "30", about: "Longest recording, in seconds; the gateway's variable of this name." },
  MAX_FILE_SIZE: { default: "10485760", about: "Largest recording, in bytes; the gateway's variable of this name." },
  NEXT_PUBLIC_TRANSCRIPTION_PROVIDER: { default: "whisper", about: "`whisper`: the service, for the users of the rollout; `webspeech`: the browser's own recognition, for everybody." },
  TRANSCRIPTION_ROLLOUT_PERCENT: { default: "100", about: "How many users of a hundred the service hears, 0 to 100, to two decimals." },
  TRANSCRIPTION_ROLLOUT_FILE: { default: "", about: "A file with that number, read anew every few seconds, so that it changes without a restart; it goes before the variable." },
  TRANSCRIPTION_CHECK_SECONDS: { default: "15", about: "Seconds after which an open page asks anew how the service is and who hears its user." },
} as const;

export type Variable = keyof typeof VARIABLES;
type Environment = Readonly<Record<string, string | undefined>>;

export interface Settings {
  url: string;
  apiKey: string;
  timeout: number;
  maxDuration: number;
  maxBytes: number;
  provider: Provider;
  percent: number;
  percentFile: string;
  checkSeconds: number;
}

/** A variable has a value that is not allowed. */
export class BadSetting extends Error {
  override readonly name = "BadSetting";
}

/**
 * The settings as they are now.
 *
 * `environment` is looked up by a computed name: written as `process.env.NEXT_PUBLIC_…`, the value of the build would stand here.
 */
export function readSettings(environment: Environment = process.env): Settings {
  const given = (name: Variable) => environment[name]?.trim() || VARIABLES[name].default;
  const provider = given("NEXT_PUBLIC_TRANSCRIPTION_PROVIDER");
  if (!isProvider(provider)) throw bad("NEXT_PUBLIC_TRANSCRIPTION_PROVIDER", provider, "whisper or webspeech");
  return {
    url: address(given("BUS_WORKER_URL")),
    apiKey: given("BUS_WORKER_API_KEY"),
    timeout: number("BUS_WORKER_TIMEOUT", given("BUS_WORKER_TIMEOUT"), 1, 3600),
    maxDuration: number("MAX_AUDIO_DURATION", given("MAX_AUDIO_DURATION"), 1, 86_400),
    maxBytes: number("MAX_FILE_SIZE", given("MAX_FILE_SIZE"), 1, 2 ** 40),
    provider,
    percent: number("TRANSCRIPTION_ROLLOUT_PERCENT", given("TRANSCRIPTION_ROLLOUT_PERCENT"), 0, 100),
    percentFile: given("TRANSCRIPTION_ROLLOUT_FILE"),
    checkSeconds: number("TRANSCRIPTION_CHECK_SECONDS", given("TRANSCRIPTION_CHECK_SECONDS"), 1, 3600),
  };
}

const FILE_FOR_MS = 3000;
let lastRead: { file: string; until: number; percent: Promise<number> } | undefined;

/** The percentage in force: the file's where one is named. A file that cannot be read means 0: back to what was before. */
export function readPercent(settings: Settings, now = Date.now()): Promise<number> {
  const file = settings.percentFile;
  if (!file) return Promise.resolve(settings.percent);
  if (lastRead?.file !== file || lastRead.until <= now) lastRead = { file, until: now + FILE_FOR_MS, percent: fromFile(file) };
  return lastRead.percent;
}

async function fromFile(file: string): Promise<number> {
  try {
    return number("TRANSCRIPTION_ROLLOUT_FILE", (await readFile(file, "utf8")).trim(), 0, 100);
  } catch (error) {
    console.error(`The rollout file ${file} cannot be used, so nobody is in the rollout:`, error instanceof Error ? error.message : error);
    return 0;
  }
}

function number(name: Variable, text: string, least: number, most: number): number {
  const value = text === "" ? NaN : Number(text);
  if (!(value >= least && value <= most)) throw bad(name, text, `a number from ${least} to ${most}`);
  return value;
}

function address(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || !["http:", "https:"].includes(url.protocol) || url.username || url.password || url.search || url.hash) {
    throw bad("BUS_WORKER_URL", text, "an http:// or https:// address without user, query or fragment");
  }
  return url.href.replace(/\/$/, "");
}

function bad(name: Variable, value: string, allowed: string): BadSetting {
  return new BadSetting(`${name} is ${JSON.stringify(value.slice(0, 100))}; it must be ${allowed}`);
}
