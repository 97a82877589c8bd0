// A service that asks on the bus itself, without HTTP: npm run publish-example -- [--language en] hello.wav other.wav
// NATS_URL (and NATS_USER, NATS_PASSWORD or NATS_TOKEN) say where the bus is, WHISPER_MODEL which model is to hear.

import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { decode, encode } from "@msgpack/msgpack";
import { connect, createInbox, headers, NoRespondersError, RequestError, TimeoutError, type ConnectionOptions, type NatsConnection } from "@nats-io/transport-node";
import type { TranscriptReply } from "@/lib/bus-worker";

/** What comes over the bus: the HTTP reply without the one confidence that the gateway adds. */
type BusReply = Omit<TranscriptReply, "confidence">;
type Answer = BusReply | { error: { code: string; message: string; retry: boolean } };

export interface Ask {
  language?: string | undefined;
  /** Seconds in which the answer is of use; work stops then. */
  within?: number;
  /** For the workers' logs. */
  requestId?: string;
  signal?: AbortSignal;
}

/** The bus's refusal, or why it could not be asked. */
export class TranscribeError extends Error {
  override readonly name = "TranscribeError";

  constructor(readonly code: string, message: string, readonly retry: boolean) {
    super(message);
  }
}

/** Seconds after the deadline in which a worker's own word about it may still come. */
const GRACE = 0.5;

/** Asks the workers; one for a whole process, for any number of recordings at once. */
export class BusTranscriber {
  private readonly subject: string;

  constructor(
    private readonly nc: NatsConnection,
    private readonly model = "base",
  ) {
    if (!/^[A-Za-z0-9._-]+$/.test(model)) throw new TranscribeError("bad_request", `${JSON.stringify(model)} is no model's name`, false);
    this.subject = `stt.v1.transcribe.${model.replaceAll(".", "_")}`;
  }

  async transcribe(audio: Uint8Array, { language, within = 30, requestId = randomBytes(8).toString("hex"), signal }: Ask = {}): Promise<BusReply> {
    const request = encode({ audio, options: language ? { language } : {} });
    const most = this.nc.info?.max_payload ?? 1_048_576;
    if (request.length > most) throw new TranscribeError("too_large", `the bus takes ${most} bytes in a message; larger audio goes by ticket`, false);
    const call = { id: randomBytes(16).toString("hex"), requestId, deadline: Date.now() + within * 1000 };
    const cancel = () => this.nc.publish("stt.control.cancel", encode({ call_id: call.id }));
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      for (;;) {
        if (signal?.aborted) throw new TranscribeError("cancelled", "the caller cancelled it", false);
        const answer = await this.ask(request, call);
        if (answer && !("error" in answer)) return answer;
        if (answer && !(answer.error.retry && Date.now() < call.deadline)) throw new TranscribeError(answer.error.code, answer.error.message, answer.error.retry);
        if (Date.now() >= call.deadline) throw await this.nobody();
        await sleep(50 + 50 * Math.random()); // nobody has room just now: ask again, not all at once
      }
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  /** One question; undefined where nobody took it. */
  private async ask(request: Uint8Array, call: { id: string; requestId: string; deadline: number }): Promise<Answer | undefined> {
    const head = headers();
    head.set("Content-Type", "application/vnd.msgpack");
    head.set("Stt-Deadline", String(call.deadline));
    head.set("Stt-Request-Id", call.requestId);
    head.set("Stt-Call-Id", call.id);
    const timeout = Math.max(1, call.deadline - Date.now() + GRACE * 1000);
    try {
      return decode((await this.nc.request(this.subject, request, { headers: head, timeout })).data) as Answer;
    } catch (error) {
      if (error instanceof NoRespondersError || (error instanceof RequestError && error.isNoResponders())) return undefined;
      if (error instanceof TimeoutError || (error instanceof RequestError && error.cause instanceof TimeoutError)) {
        throw new TranscribeError("deadline_exceeded", "no answer came by the deadline", true);
      }
      throw error;
    }
  }

  /** Why nobody took it to the end: all are busy, none has the model, or there is nobody. */
  private async nobody(): Promise<TranscribeError> {
    const served = await this.served();
    if (served.size === 0) return new TranscribeError("unavailable", "no worker is on the bus", true);
    if (served.has(this.model)) return new TranscribeError("busy", "every worker was busy until the deadline", true);
    return new TranscribeError("model_not_found", `no worker serves ${this.model}; served: ${[...served].sort().join(", ")}`, false);
  }

  /** The models of the workers that answer within a moment. */
  private async served(): Promise<Set<string>> {
    const models = new Set<string>();
    const inbox = createInbox();
    const answers = this.nc.subscribe(inbox, {
      callback: (error, message) => {
        if (error || message.data.length === 0) return; // nobody there
        models.add(message.json<{ metadata: { model: string } }>().metadata.model);
      },
    });
    this.nc.publish("$SRV.PING.stt", undefined, { reply: inbox });
    await sleep(400);
    answers.unsubscribe();
    return models;
  }
}

function address(environment: NodeJS.ProcessEnv): ConnectionOptions {
  const { NATS_URL = "nats://localhost:4222", NATS_USER, NATS_PASSWORD, NATS_TOKEN } = environment;
  return {
    servers: NATS_URL,
    name: "publish-example",
    ...(NATS_USER ? { user: NATS_USER, pass: NATS_PASSWORD ?? "" } : {}),
    ...(NATS_TOKEN ? { token: NATS_TOKEN } : {}),
  };
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { language: { type: "string" }, within: { type: "string", default: "30" } } });
  const nc = await connect(address(process.env)).catch((cause: unknown) => {
    throw new TranscribeError("unavailable", `the bus cannot be reached: ${cause instanceof Error ? cause.message : String(cause)}`, true);
  });
  const leaving = new AbortController();
  process.once("SIGINT", () => leaving.abort());
  try {
    const transcriber = new BusTranscriber(nc, process.env["WHISPER_MODEL"]);
    const ask = { language: values.language, within: Number(values.within), signal: leaving.signal };
    const work = positionals.map(async (file) => ({ file, ...(await transcriber.transcribe(await readFile(file), ask)) }));
    for (const [at, done] of (await Promise.allSettled(work)).entries()) {
      if (done.status === "fulfilled") {
        const { file, text, language, duration } = done.value;
        console.log(JSON.stringify({ file, text, language, duration }));
      } else {
        complain(done.reason, `${positionals[at]}: `);
      }
    }
  } finally {
    await nc.drain();
  }
}

/** One sentence on standard error, and a status of 1 at the end. */
function complain(error: unknown, about = ""): void {
  const { code, message } = error as Partial<TranscribeError>;
  console.error(`${about}${code ?? "failed"}: ${message}`);
  process.exitCode = 1;
}

await main().catch((error: unknown) => complain(error));
