// The microphone as a recording, in the type that the browser offers, with its level while it runs.

import { Trouble } from "@/lib/errors";

const TYPES = ["audio/webm;codecs=opus", "audio/mp4", "audio/ogg;codecs=opus"];
const SLICE_MS = 200;
/** Seconds before the limit at which a recording ends: what comes late counts too. */
const SLACK = 0.5;
/** RMS of a voice at the microphone's limit. */
const SHOUT = 0.4;

export interface Recording {
  level: () => number;
  /** Ends it; nothing happens where it has ended. */
  stop: () => void;
  /** The audio, and whether the limit ended it; also when the microphone is pulled out. */
  readonly ended: Promise<{ audio: Blob; atLimit: boolean }>;
}

export function recorderType(isSupported: (type: string) => boolean): string | undefined {
  return TYPES.find(isSupported);
}

/** Opens the microphone and records. Throws Trouble where there is none, or it may not be used. */
export async function record(maxDuration: number): Promise<Recording> {
  const stream = await open();
  try {
    return recordingOf(stream, maxDuration);
  } catch (cause) {
    release(stream); // nobody else could: no recording holds it
    throw new Trouble("microphone_failed", { cause });
  }
}

function release(stream: MediaStream): void {
  for (const track of stream.getTracks()) track.stop();
}

function recordingOf(stream: MediaStream, maxDuration: number): Recording {
  const mimeType = recorderType((type) => MediaRecorder.isTypeSupported(type));
  const recorder = new MediaRecorder(stream, mimeType ? { mimeType } : {});
  const meter = listen(stream);
  const parts: Blob[] = [];
  let atLimit = false;
  const began = performance.now();
  const stop = () => {
    if (recorder.state !== "inactive") recorder.stop();
  };
  // Counted by the recorder's own events: they come in time also where timers do not, in a tab behind others.
  recorder.ondataavailable = ({ data }) => {
    parts.push(data);
    if (recorder.state === "recording" && (performance.now() - began) / 1000 > maxDuration - SLACK) {
      atLimit = true;
      stop();
    }
  };
  const ended = new Promise<void>((resolve) => recorder.addEventListener("stop", () => resolve(), { once: true })).then(async () => {
    release(stream);
    await meter.close();
    return { audio: new Blob(parts, { type: recorder.mimeType.split(";")[0] ?? "" }), atLimit };
  });
  recorder.start(SLICE_MS);
  return { level: meter.level, stop, ended };
}

async function open(): Promise<MediaStream> {
  if (!canRecord()) throw new Trouble("microphone_insecure");
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  } catch (cause) {
    const name = cause instanceof Error ? cause.name : "";
    if (name === "NotAllowedError" || name === "SecurityError") throw new Trouble("microphone_refused", { cause });
    if (name === "NotFoundError" || name === "OverconstrainedError") throw new Trouble("microphone_missing", { cause });
    throw new Trouble("microphone_failed", { cause });
  }
}

export function canRecord(): boolean {
  return "mediaDevices" in navigator && "MediaRecorder" in globalThis;
}

function listen(stream: MediaStream) {
  const context = new AudioContext();
  void context.resume(); // a browser may have it sleep until it is told
  const analyser = new AnalyserNode(context, { fftSize: 2048, smoothingTimeConstant: 0 });
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  return {
    level: (): number => {
      analyser.getFloatTimeDomainData(samples);
      const rms = Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
      return Math.min(1, (rms / SHOUT) ** 0.7); // roughly as the ear has it
    },
    close: () => context.close(),
  };
}
