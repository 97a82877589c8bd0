// What every provider does: listens, tells what it hears, and can be stopped; the page knows no more of it.

import type { Trouble } from "@/lib/errors";
import type { Transcript } from "@/lib/transcript";

export type Told =
  /** The microphone is open. */
  | { kind: "recording" }
  /** The microphone is closed; `audio` is what may be sent again, where there is any. */
  | { kind: "recorded"; audio: Blob | null; atLimit: boolean }
  /** All text so far. */
  | { kind: "partial"; text: string }
  | { kind: "done"; transcript: Transcript }
  | { kind: "failed"; trouble: Trouble };

export type Tell = (told: Told) => void;

export interface Options {
  /** Seconds after which a recording ends by itself. */
  maxDuration: number;
  /** As `en`; the provider's guess when not given. */
  language?: string | undefined;
}

export interface Session {
  /** Ends the recording; its text follows. */
  stop(): void;
  /** Ends everything; nothing more is told. */
  cancel(): void;
  /** How loud it is, 0 to 1; null where the provider does not show it. */
  level(): number | null;
}

export type Listen = (options: Options, tell: Tell) => Session;
