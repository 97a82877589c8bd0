// The real programs that the browser's tests stand on: `bus-worker up`, a gateway more, `next start`; and what the microphone hears.

import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, mkdtempSync, writeFileSync } from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

export const APP = path.resolve(import.meta.dirname, "..");
const BIN = path.resolve(APP, "../../.venv/bin");
export const FOLDER = mkdtempSync(path.join(os.tmpdir(), "nextjs-e2e-"));

const STARTS_WITHIN_MS = 60_000;
const RATE = 22_050;

/** A program and what it says. */
export class Program {
  said = "";
  private readonly process: ChildProcess;
  private readonly gone: Promise<unknown>;

  constructor(
    readonly name: string,
    command: string,
    args: string[],
    variables: Record<string, string> = {},
    cwd = FOLDER, // an empty folder, so that no .env is read
  ) {
    const { PATH = "", HOME = "" } = process.env;
    const env = { PATH, HOME, NODE_ENV: "production", NEXT_TELEMETRY_DISABLED: "1", ...variables } as NodeJS.ProcessEnv;
    this.process = spawn(command, args, { cwd, env, stdio: ["ignore", "pipe", "pipe"] });
    this.gone = once(this.process, "exit");
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        this.said += text;
        appendFileSync(path.join(FOLDER, `${name}.log`), text);
      });
    }
  }

  /** Waits for words of the program's; what the pattern's first group holds. */
  async says(pattern: RegExp): Promise<string> {
    const end = Date.now() + STARTS_WITHIN_MS;
    for (;;) {
      const found = pattern.exec(this.said);
      if (found) return found[1] ?? "";
      if (this.process.exitCode !== null || Date.now() > end) throw new Error(`${this.name} never said ${String(pattern)}:\n${this.said.slice(-2000)}`);
      await sleep(50);
    }
  }

  /** Its exit status, when it has ended by itself. */
  async ended(): Promise<number | null> {
    await this.gone;
    return this.process.exitCode;
  }

  async stop(): Promise<void> {
    this.process.kill("SIGTERM");
    await this.gone;
  }
}

export async function freePort(): Promise<string> {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as net.AddressInfo;
  server.close();
  return String(port);
}

/** Bus, model, one worker with one slot, and a gateway with a key. */
export async function startService(port: string, key: string): Promise<Program> {
  const up = new Program("up", path.join(BIN, "bus-worker"), ["up", "--workers", "1"], {
    API_HOST: "127.0.0.1",
    API_PORT: port,
    API_KEY: key,
    WHISPER_MODEL: "base",
    WHISPER_REPLICAS: "1",
    WORKER_SLOTS: "1",
  });
  await up.says(/^ready: /m);
  return up;
}

export function busOf(up: Program): string {
  return /^nats-server .*(nats:\/\/\S+)/m.exec(up.said)?.[1] ?? "";
}

/** One more gateway on that bus, with settings of its own. */
export async function startGateway(bus: string, variables: Record<string, string>): Promise<Program> {
  const gateway = new Program("gateway", path.join(BIN, "bus-gateway"), [], { NATS_URL: bus, API_HOST: "127.0.0.1", WHISPER_MODEL: "base", ...variables });
  await gateway.says(/(ready)/);
  return gateway;
}

/** The app as it was built; Next.js itself, not npm, so that it ends when it is told to. */
export async function startApp(name: string, port: string, variables: Record<string, string>): Promise<Program> {
  const next = path.join(APP, "node_modules/next/dist/bin/next");
  const app = new Program(name, process.execPath, [next, "start", "-H", "127.0.0.1", "-p", port], variables, APP);
  await app.says(/(Ready)/);
  return app;
}

/** A WAV file of these sentences, with that many seconds of silence between them. */
export function speak(name: string, sentences: string[], pause: number): string {
  const silence = Buffer.alloc(Math.round(RATE * pause) * 2);
  const spoken = sentences.flatMap((sentence) => [samplesOf(sentence), silence]);
  return wav(name, Buffer.concat(spoken));
}

/** A WAV file of so many seconds of nothing. */
export function silent(name: string, seconds: number): string {
  return wav(name, Buffer.alloc(Math.round(RATE * seconds) * 2));
}

function samplesOf(sentence: string): Buffer {
  const said = execFileSync("espeak-ng", ["-v", "en-us", "-s", "150", "--stdout", sentence]);
  return said.subarray(said.indexOf("data") + 8);
}

function wav(name: string, samples: Buffer): string {
  const head = Buffer.alloc(44);
  head.write("RIFF", 0);
  head.writeUInt32LE(36 + samples.length, 4);
  head.write("WAVEfmt ", 8);
  head.writeUInt32LE(16, 16);
  head.writeUInt16LE(1, 20);
  head.writeUInt16LE(1, 22);
  head.writeUInt32LE(RATE, 24);
  head.writeUInt32LE(RATE * 2, 28);
  head.writeUInt16LE(2, 32);
  head.writeUInt16LE(16, 34);
  head.write("data", 36);
  head.writeUInt32LE(samples.length, 40);
  const file = path.join(FOLDER, name);
  writeFileSync(file, Buffer.concat([head, samples]));
  return file;
}
