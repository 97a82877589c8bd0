// Where one transcription stands, and how what a provider tells moves it on.

import type { Trouble } from "@/lib/errors";
import type { Told } from "@/lib/session";
import type { Provider, Transcript } from "@/lib/transcript";

export type Phase = "idle" | "starting" | "recording" | "hearing" | "done" | "failed";

export interface Progress {
  phase: Phase;
  /** Who hears it; stays the same to its end, whatever becomes of the service meanwhile. */
  provider: Provider | null;
  /** All text so far. */
  partial: string;
  transcript: Transcript | null;
  trouble: Trouble | null;
  /** The recording, kept until the next one so that it may be sent again. */
  audio: Blob | null;
  /** Whether the recording ended because it may not be longer. */
  atLimit: boolean;
}

export type Action = Told | { kind: "start"; provider: Provider } | { kind: "send"; audio: Blob } | { kind: "cancel" };

export const IDLE: Progress = { phase: "idle", provider: null, partial: "", transcript: null, trouble: null, audio: null, atLimit: false };

export function reduce(progress: Progress, action: Action): Progress {
  switch (action.kind) {
    case "start":
      return { ...IDLE, phase: "starting", provider: action.provider };
    case "send":
      return { ...IDLE, phase: "hearing", provider: "whisper", audio: action.audio, atLimit: progress.atLimit };
    case "cancel":
      return { ...IDLE, audio: progress.audio, provider: progress.provider };
    case "recording":
      return { ...progress, phase: "recording" };
    case "recorded":
      return { ...progress, phase: "hearing", audio: action.audio, atLimit: action.atLimit };
    case "partial":
      return { ...progress, partial: action.text };
    case "done":
      return { ...progress, phase: "done", transcript: action.transcript, partial: action.transcript.transcript };
    case "failed":
      return { ...progress, phase: "failed", trouble: action.trouble };
  }
}
