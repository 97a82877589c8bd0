// Each way to fail: the gateway's code or one of this app's own, as a status, a sentence and a next step.

export interface Failure {
  /** The HTTP status of this app's answer. What is wrong between app and gateway is a 502 to the browser. */
  readonly status: number;
  /** What happened. */
  readonly sentence: string;
  /** What the person may do now. */
  readonly next: string;
  /** Whether sending the same recording once more may help. */
  readonly retry: boolean;
}

const again = { retry: true };
const final = { retry: false };

/** The codes of the gateway, as its `bus_worker/errors.py` lists them; a test holds the two together. */
export const GATEWAY_FAILURES = {
  bad_request: { status: 400, sentence: "The service did not understand this request.", next: "Reload the page: it may be older than the service.", ...final },
  bad_audio: { status: 400, sentence: "This could not be read as audio.", next: "Record again, or send a common format: wav, mp3, m4a, ogg, flac or webm.", ...final },
  audio_too_short: { status: 400, sentence: "That was too short to hear anything in it.", next: "Record a little longer.", ...final },
  audio_too_long: { status: 400, sentence: "This recording is longer than the service takes.", next: "Record a shorter piece.", ...final },
  unauthorized: { status: 502, sentence: "The speech service does not accept this app's key.", next: "Tell whoever runs this app.", ...final },
  not_found: { status: 502, sentence: "The speech service does not know the address this app asks.", next: "Tell whoever runs this app.", ...final },
  model_not_found: { status: 502, sentence: "No worker has the model this app asks for.", next: "Try again in a minute, or tell whoever runs this app.", ...again },
  job_not_found: { status: 404, sentence: "The service knows nothing of this recording any more.", next: "Send it again.", ...final },
  method_not_allowed: { status: 502, sentence: "The speech service does not take this kind of request.", next: "Tell whoever runs this app.", ...final },
  request_timeout: { status: 408, sentence: "The recording arrived too slowly, so the service stopped waiting.", next: "Try again on a faster connection.", ...again },
  idempotency_conflict: { status: 409, sentence: "The service was sent something else under the same key.", next: "Send the recording again.", ...again },
  claim_expired: { status: 502, sentence: "The recording was gone before a worker could hear it.", next: "Send it again.", ...again },
  too_large: { status: 413, sentence: "This recording is larger than the service takes.", next: "Send a shorter piece, or a smaller format such as mp3 or opus.", ...final },
  rate_limited: { status: 429, sentence: "Too many recordings are being heard for this app right now.", next: "Wait a moment, and try again.", ...again },
  cancelled: { status: 499, sentence: "The request was cancelled.", next: "Send the recording again whenever you like.", ...again },
  failed: { status: 502, sentence: "The speech service failed on this recording. That is not your fault.", next: "Try again. If it fails once more, tell whoever runs this app the number below.", ...again },
  busy: { status: 503, sentence: "The speech service is busy.", next: "Try again in a moment; your recording is kept.", ...again },
  stopping: { status: 503, sentence: "The worker was just shutting down.", next: "Try again: another one takes over.", ...again },
  unavailable: { status: 503, sentence: "The speech service cannot be reached.", next: "Your recording is kept. Try again in a minute.", ...again },
  deadline_exceeded: { status: 504, sentence: "This took longer than the service allows.", next: "Try again when it is less busy; your recording is kept.", ...again },
} as const satisfies Record<string, Failure>;

/** What only this app can know, on its server or in the browser. */
export const APP_FAILURES = {
  no_audio: { status: 400, sentence: "There was no recording in this request.", next: "Record something first.", ...final },
  forbidden: { status: 403, sentence: "This address answers pages of this app only.", next: "Open the app itself.", ...final },
  unsupported_type: { status: 415, sentence: "This is not a kind of audio that the service takes.", next: "Send wav, mp3, m4a, ogg, flac or webm.", ...final },
  no_answer: { status: 502, sentence: "The speech service did not answer.", next: "Your recording is kept. Try again in a minute.", ...again },
  cut_off: { status: 502, sentence: "The answer broke off before its end.", next: "Try again; your recording is kept.", ...again },
  timeout: { status: 504, sentence: "The speech service took too long.", next: "Try again when it is less busy; your recording is kept.", ...again },
  unknown: { status: 502, sentence: "Something went wrong that this app does not know.", next: "Try again, or tell whoever runs this app the number below.", ...again },
  offline: { status: 0, sentence: "This app's server did not answer.", next: "Check your connection. Your recording is kept.", ...again },
  microphone_refused: { status: 0, sentence: "The browser did not let this page use the microphone.", next: "Allow it in the address bar or in the browser's settings, then record again.", ...final },
  microphone_missing: { status: 0, sentence: "No microphone was found.", next: "Plug one in, or choose a file instead.", ...final },
  microphone_insecure: { status: 0, sentence: "Browsers lend the microphone only over https or on localhost.", next: "Open this page with https.", ...final },
  microphone_failed: { status: 0, sentence: "The microphone could not be used.", next: "Perhaps another program holds it. Close that, and record again.", ...final },
  speech_unsupported: { status: 0, sentence: "This browser has no speech recognition of its own.", next: "Use another browser, or come back when the speech service is up.", ...final },
  speech_nothing: { status: 0, sentence: "The browser heard no words.", next: "Record again, a little louder.", ...final },
  speech_network: { status: 0, sentence: "The browser's speech recognition needs a connection and found none.", next: "Check your connection, and record again.", ...final },
  speech_failed: { status: 0, sentence: "The browser's speech recognition failed.", next: "Record again.", ...final },
} as const satisfies Record<string, Failure>;

const FAILURES: Readonly<Record<string, Failure>> = { ...GATEWAY_FAILURES, ...APP_FAILURES };

export type Code = keyof typeof GATEWAY_FAILURES | keyof typeof APP_FAILURES;

/** What a code means; a newer gateway may send one that this app does not know. */
export function failure(code: string): Failure {
  return Object.hasOwn(FAILURES, code) ? (FAILURES[code] ?? APP_FAILURES.unknown) : APP_FAILURES.unknown;
}

/** How an error looks in this app's answers, as JSON and as an `error` event. */
export interface ErrorBody {
  error: {
    code: string;
    message: string;
    next: string;
    retry: boolean;
    /** What the gateway said of the caller's own mistake, with its numbers. */
    detail?: string;
    requestId?: string;
    /** Seconds after which asking again may help. */
    retryAfter?: number;
  };
}

export interface About {
  detail?: string | undefined;
  requestId?: string | undefined;
  retryAfter?: number | undefined;
  cause?: unknown;
}

/** An error that a person can read. */
export class Trouble extends Error {
  override readonly name = "Trouble";
  readonly code: string;
  readonly detail: string | undefined;
  readonly requestId: string | undefined;
  readonly retryAfter: number | undefined;

  constructor(code: string, { detail, requestId, retryAfter, cause }: About = {}) {
    super(failure(code).sentence, cause === undefined ? undefined : { cause });
    this.code = code;
    this.detail = detail;
    this.requestId = requestId;
    this.retryAfter = retryAfter;
  }

  get failure(): Failure {
    return failure(this.code);
  }

  /** The same with an id that the gateway's log knows too. */
  withId(requestId: string): Trouble {
    const { code, detail, retryAfter, cause } = this;
    return new Trouble(code, { detail, retryAfter, cause, requestId });
  }

  toBody(): ErrorBody {
    const { sentence, next, retry } = this.failure;
    return {
      error: {
        code: this.code,
        message: sentence,
        next,
        retry,
        ...(this.detail === undefined ? {} : { detail: this.detail }),
        ...(this.requestId === undefined ? {} : { requestId: this.requestId }),
        ...(this.retryAfter === undefined ? {} : { retryAfter: this.retryAfter }),
      },
    };
  }
}

/** The error that an answer of this app describes. */
export function troubleOf(body: unknown, fallback: Code): Trouble {
  const error = record(record(body)?.["error"]);
  const code = error?.["code"];
  if (typeof code !== "string") return new Trouble(fallback);
  return new Trouble(code, {
    detail: text(error?.["detail"]),
    requestId: text(error?.["requestId"]),
    retryAfter: typeof error?.["retryAfter"] === "number" ? error["retryAfter"] : undefined,
  });
}

function record(value: unknown): Record<string, unknown> | undefined {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
}

function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}
