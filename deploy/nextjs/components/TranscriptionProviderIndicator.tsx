import type { Choice } from "@/lib/config";
import type { Provider } from "@/lib/transcript";

const NAMES: Readonly<Record<Provider, string>> = { whisper: "Whisper", webspeech: "Web Speech" };

interface Props {
  choice: Choice;
  /** Whether the service can serve; null while nobody knows. */
  healthy: boolean | null;
  /** Whether this browser has recognition of its own. */
  browserCan: boolean;
}

/** Which provider hears the user, whether the service is well, and why this provider. */
export function TranscriptionProviderIndicator({ choice, healthy, browserCan }: Props) {
  const nobody = choice.provider === "webspeech" && !browserCan;
  const mood = nobody ? "bad" : healthy === null ? "asking" : healthy ? "good" : "bad";
  return (
    <div className="indicator" role="status" data-provider={choice.provider} data-mood={mood} data-reason={choice.reason}>
      <p className="pill">
        <Sign mood={mood} />
        <span>
          <strong>{NAMES[choice.provider]}</strong> <span className="state">{nobody ? "not in this browser" : state(choice, healthy)}</span>
        </span>
      </p>
      <p className="why">
        {choice.why}
        {nobody ? " This browser has no recognition of its own." : choice.reason === "unhealthy" && " Your browser’s own recognition stands in until it can."}
        {choice.reason === "override" && (
          <>
            {" "}
            <a href="?transcription=auto">Undo</a>
          </>
        )}
      </p>
    </div>
  );
}

function state({ provider, reason }: Choice, healthy: boolean | null): string {
  if (reason === "unhealthy") return "stands in";
  if (provider === "webspeech") return "in use";
  return healthy === null ? "looking…" : "ready";
}

/** A shape each, for those who do not see the colours. */
function Sign({ mood }: { mood: string }) {
  return (
    <svg viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">
      {mood === "bad" ? <path d="M6 1 11.5 11H.5Z" /> : <circle cx="6" cy="6" r={mood === "asking" ? 3 : 5} />}
    </svg>
  );
}
