// Which provider hears a user, and why: configuration, rollout, override and health, judged in one place.

import { inRollout } from "@/lib/rollout";
import type { Provider } from "@/lib/transcript";

export const PROVIDERS: readonly Provider[] = ["whisper", "webspeech"];

/** Names of the cookies, and of the query that overrides. */
export const USER_COOKIE = "transcription-user";
export const OVERRIDE_COOKIE = "transcription";
export const OVERRIDE_QUERY = "transcription";

export function isProvider(value: unknown): value is Provider {
  return PROVIDERS.some((provider) => provider === value);
}

/** Everything that the choice depends on. */
export interface Situation {
  /** `NEXT_PUBLIC_TRANSCRIPTION_PROVIDER`: `webspeech` switches the service off for everybody. */
  configured: Provider;
  /** How many users of a hundred the service hears. */
  percent: number;
  /** Whatever names the user and stays: the app's own user id, else a cookie. */
  userId: string;
  /** What the user asked for by `?transcription=`. */
  override: Provider | null;
  /** Why the service cannot serve now; null where it can, or nobody has looked yet. */
  problem: string | null;
}

export type Reason = "override" | "configured" | "rollout" | "not_in_rollout" | "unhealthy";

export interface Choice {
  provider: Provider;
  reason: Reason;
  /** The reason as a sentence. */
  why: string;
}

/** Who hears this user now. An unhealthy service is never chosen, not even by an override. */
export function getTranscriptionProvider(situation: Situation): Choice {
  const wanted = choose(situation);
  return wanted.provider === "whisper" && situation.problem ? fallBack(situation.problem) : wanted;
}

/** The browser's own recognition, because the service cannot serve. */
export function fallBack(problem: string): Choice {
  return { provider: "webspeech", reason: "unhealthy", why: problem };
}

function choose({ configured, percent, userId, override }: Situation): Choice {
  if (override) return { provider: override, reason: "override", why: "You chose this with a link." };
  if (configured === "webspeech") return { provider: "webspeech", reason: "configured", why: "The speech service is switched off." };
  if (percent >= 100) return { provider: "whisper", reason: "configured", why: "Everybody is heard by the speech service." };
  return inRollout(userId, percent)
    ? { provider: "whisper", reason: "rollout", why: `You are among the ${percent} % who try the speech service.` }
    : { provider: "webspeech", reason: "not_in_rollout", why: `The speech service hears ${percent} % so far; you are not among them yet.` };
}
