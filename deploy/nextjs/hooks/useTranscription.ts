"use client";
// One transcription at a time, with whichever provider is chosen when it starts.

import { useCallback, useEffect, useReducer, useRef } from "react";
import { Trouble } from "@/lib/errors";
import { IDLE, reduce, type Progress } from "@/lib/progress";
import type { Session, Tell } from "@/lib/session";
import type { Provider } from "@/lib/transcript";
import * as webspeech from "@/lib/webspeech";
import * as whisper from "@/lib/whisper";

export interface Limits {
  /** Seconds. */
  maxDuration: number;
  /** Bytes. */
  maxBytes: number;
}

export interface Transcription extends Progress {
  start: () => void;
  /** Ends the recording; its text follows. */
  stop: () => void;
  /** Ends everything; the recording, if there is one, is kept. */
  cancel: () => void;
  /** Sends the kept recording once more. */
  retry: () => void;
  /** Sends a file in place of a recording. */
  send: (file: Blob) => void;
  level: () => number | null;
}

export function useTranscription(provider: Provider, { maxDuration, maxBytes }: Limits, language?: string): Transcription {
  const [progress, dispatch] = useReducer(reduce, IDLE);
  const session = useRef<Session | null>(null);

  useEffect(() => () => session.current?.cancel(), []); // the page is left: so is the work

  const begin = useCallback((open: (tell: Tell) => Session) => {
    session.current?.cancel();
    // What an earlier session still tells is nobody's business any more.
    const mine: Session = open((told) => {
      if (session.current === mine) dispatch(told);
    });
    session.current = mine;
  }, []);

  const start = useCallback(() => {
    dispatch({ kind: "start", provider });
    const { listen } = provider === "whisper" ? whisper : webspeech;
    begin((tell) => listen({ maxDuration, language }, tell));
  }, [begin, provider, maxDuration, language]);

  const send = useCallback(
    (audio: Blob) => {
      dispatch({ kind: "send", audio });
      begin((tell) => sending(audio, maxBytes, language, tell));
    },
    [begin, maxBytes, language],
  );

  const stop = useCallback(() => session.current?.stop(), []);
  const cancel = useCallback(() => {
    session.current?.cancel();
    session.current = null;
    dispatch({ kind: "cancel" });
  }, []);
  const level = useCallback(() => session.current?.level() ?? null, []);
  const { audio } = progress;
  const retry = useCallback(() => {
    if (audio) send(audio);
  }, [audio, send]);

  return { ...progress, start, stop, cancel, retry, send, level };
}

/** A recording that is there already, as a session. */
function sending(audio: Blob, maxBytes: number, language: string | undefined, tell: Tell): Session {
  const ending = new AbortController();
  if (audio.size > maxBytes) queueMicrotask(() => tell({ kind: "failed", trouble: new Trouble("too_large", { detail: `The limit is ${maxBytes} bytes.` }) }));
  else void whisper.send(audio, language, tell, ending.signal);
  return { stop: () => undefined, cancel: () => ending.abort(), level: () => null };
}
