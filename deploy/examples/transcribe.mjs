// Transcribe a recording over the bus: node transcribe.mjs hello.wav
// Needs: npm install @nats-io/transport-node @msgpack/msgpack
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { connect, headers, RequestError } from "@nats-io/transport-node";
import { decode, encode } from "@msgpack/msgpack";

const [file, model = "base"] = process.argv.slice(2);
const timeout = 30_000;
const deadline = Date.now() + timeout;

const nc = await connect({ servers: process.env.NATS_URL ?? "nats://localhost:4222" });
const request = encode({ audio: await readFile(file), options: { language: "en" } });
const head = headers();
head.set("Content-Type", "application/vnd.msgpack");
head.set("Stt-Deadline", String(deadline));

async function ask() {
  for (;;) {
    try {
      const options = { headers: head, timeout: deadline - Date.now() + 500 };
      return decode((await nc.request(`stt.v1.transcribe.${model}`, request, options)).data);
    } catch (error) {
      // Nobody has room (or nobody is there): wait a moment and ask again.
      const noRoom = error instanceof RequestError && error.isNoResponders();
      if (!noRoom || Date.now() >= deadline) throw error;
      await sleep(50 + 50 * Math.random());
    }
  }
}

const noAnswer = { code: "unavailable", message: `no worker answered for model ${model}` };
const reply = await ask().catch(() => ({ error: noAnswer })).finally(() => nc.close());
if (reply.error) {
  console.error(`${reply.error.code}: ${reply.error.message}`);
  process.exit(1);
}
console.log(reply.text);
