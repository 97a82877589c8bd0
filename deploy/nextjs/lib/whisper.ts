// The speech service as a provider: records, sends the recording to this app's server, tells the text as it comes.

import { Trouble, troubleOf } from "@/lib/errors";
import { record, type Recording } from "@/lib/microphone";
import type { Listen, Tell } from "@/lib/session";
import { readEvents } from "@/lib/sse";
import type { Transcript, TranscriptSegment } from "@/lib/transcript";

const ADDRESS = "/api/transcribe/stream";

export const listen: Listen = ({ maxDuration, language }, tell) => {
  const ending = new AbortController();
  let recording: Recording | undefined;
  let stopped = false;
  const run = async () => {
    recording = await record(maxDuration);
    if (stopped || ending.signal.aborted) recording.stop(); // told while the browser was still asking for the microphone
    else tell({ kind: "recording" });
    const { audio, atLimit } = await recording.ended;
    if (ending.signal.aborted) return;
    tell({ kind: "recorded", audio, atLimit });
    await send(audio, language, tell, ending.signal);
  };
  void run().catch((error: unknown) => {
    if (!ending.signal.aborted) tell({ kind: "failed", trouble: error instanceof Trouble ? error : new Trouble("microphone_failed", { cause: error }) });
  });
  return {
    stop: () => {
      stopped = true;
      recording?.stop();
    },
    cancel: () => {
      ending.abort();
      recording?.stop();
    },
    level: () => recording?.level() ?? 0,
  };
};

/** Sends a recording, also one that was sent before; tells its text, or what went wrong, unless it is cancelled. */
export async function send(audio: Blob, language: string | undefined, tell: Tell, signal: AbortSignal): Promise<void> {
  try {
    const transcript = await hear(audio, language, (text) => tell({ kind: "partial", text }), signal);
    if (!signal.aborted) tell({ kind: "done", transcript });
  } catch (error) {
    if (!signal.aborted) tell({ kind: "failed", trouble: error instanceof Trouble ? error : new Trouble("offline", { cause: error }) });
  }
}

async function hear(audio: Blob, language: string | undefined, partial: (text: string) => void, signal: AbortSignal): Promise<Transcript> {
  const address = language ? `${ADDRESS}?${new URLSearchParams({ language })}` : ADDRESS;
  const headers = { "Content-Type": audio.type || "application/octet-stream", Accept: "text/event-stream" };
  const answer = await fetch(address, { method: "POST", body: audio, headers, signal });
  if (!answer.ok || !answer.body) throw troubleOf(await answer.json().catch(() => null), "no_answer");
  const heard: string[] = [];
  try {
    for await (const { event, data } of readEvents(answer.body)) {
      if (event === "segment") {
        heard.push((JSON.parse(data) as TranscriptSegment).text);
        partial(heard.join(" "));
      }
      if (event === "transcript") return JSON.parse(data) as Transcript;
      if (event === "error") throw troubleOf(JSON.parse(data), "cut_off");
    }
  } catch (error) {
    throw error instanceof Trouble ? error : new Trouble("cut_off", { cause: error });
  }
  throw new Trouble("cut_off");
}
