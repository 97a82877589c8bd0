"use client";
// Who hears this user now: asked of the server at once, now and then while somebody looks, and after trouble.

import { useCallback, useEffect, useState } from "react";
import type { HealthReply } from "@/app/api/health/route";
import { fallBack, type Choice } from "@/lib/config";

const WITHIN_MS = 8000;

export interface ProviderState {
  choice: Choice;
  /** Whether the service can serve; null until the first answer. */
  healthy: boolean | null;
  /** Ask now. */
  check: () => void;
}

/** @param first the choice that the server made when it drew the page, before anybody asked the service */
export function useProvider(first: Choice, everySeconds: number): ProviderState {
  const [known, setKnown] = useState<{ choice: Choice; healthy: boolean | null }>({ choice: first, healthy: null });
  const [asked, setAsked] = useState(0);
  const check = useCallback(() => setAsked((count) => count + 1), []);

  useEffect(() => {
    const leaving = new AbortController();
    void ask(leaving.signal).then((reply) => {
      if (!leaving.signal.aborted) setKnown(reply);
    });
    const timer = setInterval(() => {
      if (!document.hidden) check(); // nobody looks; who comes back is told at once
    }, everySeconds * 1000);
    return () => {
      leaving.abort();
      clearInterval(timer);
    };
  }, [asked, check, everySeconds]);

  useEffect(() => {
    const seen = () => {
      if (!document.hidden) check();
    };
    document.addEventListener("visibilitychange", seen);
    window.addEventListener("online", check);
    return () => {
      document.removeEventListener("visibilitychange", seen);
      window.removeEventListener("online", check);
    };
  }, [check]);

  return { ...known, check };
}

async function ask(leaving: AbortSignal): Promise<{ choice: Choice; healthy: boolean }> {
  try {
    const answer = await fetch("/api/health", { signal: AbortSignal.any([leaving, AbortSignal.timeout(WITHIN_MS)]) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return (await answer.json()) as HealthReply;
  } catch {
    return { choice: fallBack("This app's server does not answer."), healthy: false };
  }
}
