// A transcript as this app has it, whoever heard it, and the gateway's reply made into one.

import type { components } from "@/lib/gateway";

export type Provider = "whisper" | "webspeech";

export interface TranscriptSegment {
  /** Seconds from the recording's beginning. */
  start: number;
  end: number;
  text: string;
  /** How sure the provider is, 0 to 1. */
  confidence: number;
}

export interface Transcript {
  transcript: string;
  /** How sure the provider is of the whole, 0 to 1; 0 where nothing was heard. */
  confidence: number;
  /** As `en`; null where nobody knows. */
  language: string | null;
  segments: TranscriptSegment[];
  provider: Provider;
  /** Length of the audio. */
  durationMs: number;
}

type Reply = components["schemas"]["TranscriptReply"];
type ReplySegment = components["schemas"]["Segment"];

/** The gateway's reply as this app's transcript. */
export function fromReply(reply: Reply): Transcript {
  return {
    transcript: reply.text.trim(),
    confidence: share(reply.confidence ?? 0),
    language: reply.language,
    segments: reply.segments.map(fromSegment),
    provider: "whisper",
    durationMs: Math.round(reply.duration * 1000),
  };
}

/** One segment; the gateway tells the logarithm of its confidence. */
export function fromSegment(segment: ReplySegment): TranscriptSegment {
  return {
    start: segment.start,
    end: segment.end,
    text: segment.text.trim(),
    confidence: share(Math.exp(segment.confidence)),
  };
}

function share(value: number): number {
  return Number.isFinite(value) ? Math.round(Math.min(1, Math.max(0, value)) * 1000) / 1000 : 0;
}
