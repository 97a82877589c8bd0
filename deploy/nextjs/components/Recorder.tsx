"use client";

import { useEffect, useRef, useState, useSyncExternalStore } from "react";
import { LevelMeter } from "@/components/LevelMeter";
import { TranscriptionProviderIndicator } from "@/components/TranscriptionProviderIndicator";
import { useProvider } from "@/hooks/useProvider";
import { useTranscription, type Limits, type Transcription } from "@/hooks/useTranscription";
import type { Choice } from "@/lib/config";
import type { Trouble } from "@/lib/errors";
import type { Phase } from "@/lib/progress";
import type { Transcript } from "@/lib/transcript";
import { canListen } from "@/lib/webspeech";

interface Props {
  /** The server's choice when it drew the page. */
  choice: Choice;
  limits: Limits;
  checkSeconds: number;
}

/** Everything a person does here: record or choose a file, see the words come, try again. */
export function Recorder({ choice: first, limits, checkSeconds }: Props) {
  const { choice, healthy, check } = useProvider(first, checkSeconds);
  const transcription = useTranscription(choice.provider, limits);
  const { phase, partial, transcript, trouble, cancel } = transcription;
  const busy = phase === "starting" || phase === "recording" || phase === "hearing";
  const seconds = useSeconds(phase === "recording");
  const browserCan = useSyncExternalStore(never, canListen, () => true); // the server does not know

  useEffect(() => {
    if (phase === "failed") check(); // perhaps the service is gone: then the next recording is the browser's
  }, [phase, check]);

  useEffect(() => {
    const escape = ({ key }: KeyboardEvent) => {
      if (key === "Escape" && busy) cancel();
    };
    window.addEventListener("keydown", escape);
    return () => window.removeEventListener("keydown", escape);
  }, [busy, cancel]);

  return (
    <>
      <TranscriptionProviderIndicator choice={choice} healthy={healthy} browserCan={browserCan} />
      <section className="desk" aria-label="Recording" data-phase={phase}>
        <p className="clock">
          <span role="timer" aria-label="Time">{clock(seconds)}</span> <span className="soft">of {clock(limits.maxDuration)}</span>
        </p>
        <LevelMeter level={transcription.level} running={phase === "recording"} />
        <p className="status" role="status">
          {status(transcription, limits)}
        </p>
        <Controls transcription={transcription} canSend={choice.provider === "whisper"} busy={busy} />
      </section>
      {trouble && <TroubleBox trouble={trouble} onRetry={transcription.audio && trouble.failure.retry ? transcription.retry : undefined} />}
      <Words partial={partial} transcript={transcript} />
    </>
  );
}

function Controls({ transcription, canSend, busy }: { transcription: Transcription; canSend: boolean; busy: boolean }) {
  const { phase, start, stop, cancel, send } = transcription;
  const main = useRef<HTMLButtonElement>(null);
  const file = useRef<HTMLInputElement>(null);
  const recording = phase === "recording";
  const waiting = phase === "starting" || phase === "hearing";
  const press = recording ? stop : start;
  const abandon = () => {
    main.current?.focus(); // Cancel becomes another button, or none: the focus would go with it
    cancel();
  };
  return (
    <div className="controls">
      {/* One button for both, and never `disabled`, so that the keyboard's focus stays where it is. */}
      <button ref={main} type="button" className="main" id="record" onClick={waiting ? undefined : press} aria-disabled={waiting}>
        <i className={recording ? "square" : "dot"} aria-hidden="true" />
        {recording ? "Stop" : "Record"}
      </button>
      {busy ? (
        <button type="button" id="cancel" onClick={abandon}>
          Cancel
        </button>
      ) : (
        canSend && (
          <button type="button" id="choose" onClick={() => file.current?.click()}>
            Choose a file
          </button>
        )
      )}
      <input
        ref={file}
        id="file"
        type="file"
        hidden
        aria-label="Audio file"
        accept="audio/*,video/webm,video/mp4"
        onChange={({ target }) => {
          const chosen = target.files?.[0];
          target.value = ""; // the same file may be chosen again
          if (chosen) send(chosen);
        }}
      />
    </div>
  );
}

function TroubleBox({ trouble, onRetry }: { trouble: Trouble; onRetry: (() => void) | undefined }) {
  return (
    <section className="trouble" role="alert" data-code={trouble.code}>
      <h2>{trouble.message}</h2>
      <p>{trouble.failure.next}</p>
      {trouble.detail && <p className="said">{trouble.detail}</p>}
      {trouble.requestId && <p className="said">Request {trouble.requestId}</p>}
      {onRetry && (
        <button type="button" id="retry" onClick={onRetry}>
          Try again
        </button>
      )}
    </section>
  );
}

/** There from the first: what is written into a live region is read out, a region that comes with its words may not be. */
function Words({ partial, transcript }: { partial: string; transcript: Transcript | null }) {
  return (
    <section className="words" aria-label="Transcript" data-final={transcript !== null}>
      <p className="text" aria-live="polite" lang={transcript?.language ?? undefined}>
        {transcript ? transcript.transcript || "No words were heard in this recording." : partial}
      </p>
      {transcript && <p className="facts">{facts(transcript)}</p>}
    </section>
  );
}

const SAID: Readonly<Record<Phase, string>> = {
  idle: "Press Record and speak.",
  starting: "Asking for the microphone…",
  recording: "Listening…",
  hearing: "Writing down what was said…",
  done: "Done.",
  failed: "",
};

function status({ phase, atLimit }: Transcription, { maxDuration }: Limits): string {
  const limit = atLimit && phase !== "idle" ? `Stopped at ${maxDuration} seconds, the most that is taken. ` : "";
  return limit + SAID[phase];
}

function facts({ language, confidence, durationMs, provider }: Transcript): string {
  const name = language ? new Intl.DisplayNames(["en"], { type: "language", fallback: "code" }).of(language) : undefined;
  const by = provider === "whisper" ? "by Whisper" : "by your browser";
  return [name, confidence ? `${Math.round(confidence * 100)} % sure` : undefined, `${(durationMs / 1000).toFixed(1)} s`, by].filter(Boolean).join(" · ");
}

function never(): () => void {
  return () => undefined;
}

function useSeconds(running: boolean): number {
  const [seconds, setSeconds] = useState(0);
  useEffect(() => {
    if (!running) return;
    const began = performance.now();
    const timer = setInterval(() => setSeconds((performance.now() - began) / 1000), 200);
    return () => clearInterval(timer);
  }, [running]);
  return seconds;
}

function clock(seconds: number): string {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}
