// A browser's recording on its way to the gateway and back: checked, counted, never kept whole, given up when the browser leaves.

import { problem, transcribe, type Recording, type Segment, type TranscribeFields, type TranscriptReply } from "@/lib/bus-worker";
import { Trouble } from "@/lib/errors";
import { readSettings, type Settings } from "@/lib/settings";
import { COMMENT, readEvents, writeEvent } from "@/lib/sse";
import { fromReply, fromSegment } from "@/lib/transcript";

const TYPES = /^(audio\/[\w.+-]+|video\/(webm|mp4)|application\/ogg|application\/octet-stream)$/;
const REQUEST_ID = /^[A-Za-z0-9._-]{1,128}$/;

/** `POST /api/transcribe`: the transcript as JSON. */
export async function answerWhole(request: Request): Promise<Response> {
  return answered(request, async (recording, settings) => {
    const answer = await transcribe(gateway(settings), recording, fieldsOf(request));
    return Response.json(fromReply((await answer.json()) as TranscriptReply), { headers: headers(recording.requestId) });
  });
}

/** `POST /api/transcribe/stream`: a `segment` event each as it is heard, then `transcript` or `error`. */
export async function answerStream(request: Request): Promise<Response> {
  return answered(request, async (recording, settings) => {
    const answer = await transcribe(gateway(settings), recording, { ...fieldsOf(request), stream: true });
    if (!answer.body) throw new Trouble("cut_off");
    return new Response(streamOf(retold(answer.body, recording)), {
      headers: {
        ...headers(recording.requestId),
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-store, no-transform", // no-transform: a compressor would hold events back
        "X-Accel-Buffering": "no", // so would nginx
      },
    });
  });
}

type Answer = (recording: Recording, settings: Settings) => Promise<Response>;

async function answered(request: Request, answer: Answer): Promise<Response> {
  const given = request.headers.get("X-Request-Id") ?? "";
  const requestId = REQUEST_ID.test(given) ? given : crypto.randomUUID().replaceAll("-", "");
  const settings = readSettings();
  const late = AbortSignal.timeout(settings.timeout * 1000);
  let counted: Counted | undefined;
  try {
    counted = checked(request, settings.maxBytes);
    const signal = AbortSignal.any([request.signal, late]);
    return await answer({ body: counted.body, contentType: counted.contentType, requestId, signal }, settings);
  } catch (error) {
    return refused(counted?.trouble() ?? understood(error, request.signal, late), requestId);
  }
}

interface Counted {
  body: ReadableStream<Uint8Array>;
  contentType: string;
  /** What was wrong with the body itself; the error that `fetch` makes of it hides this. */
  trouble: () => Trouble | undefined;
}

/** The request's body, if it may pass; what its headers say is judged before a byte of it is read. */
function checked(request: Request, limit: number): Counted {
  if (request.headers.get("Sec-Fetch-Site") === "cross-site") throw new Trouble("forbidden");
  const contentType = request.headers.get("Content-Type") ?? "";
  if (!TYPES.test(contentType.split(";", 1)[0]?.trim().toLowerCase() ?? "")) throw new Trouble("unsupported_type");
  if ((request.headers.get("Content-Encoding") ?? "identity") !== "identity") throw new Trouble("unsupported_type");
  const length = request.headers.get("Content-Length");
  if (Number(length) > limit) throw tooLarge(limit);
  if (!request.body || length === "0") throw new Trouble("no_audio");
  let trouble: Trouble | undefined;
  let size = 0;
  const counter = new TransformStream<Uint8Array, Uint8Array>({
    transform(piece, controller) {
      size += piece.byteLength;
      if (size > limit) controller.error((trouble = tooLarge(limit)));
      else controller.enqueue(piece);
    },
    flush(controller) {
      if (size === 0) controller.error((trouble = new Trouble("no_audio")));
    },
  });
  return { body: request.body.pipeThrough(counter), contentType, trouble: () => trouble };
}

function tooLarge(limit: number): Trouble {
  return new Trouble("too_large", { detail: `The limit is ${limit} bytes.` });
}

/** The gateway's events as this app's. */
async function* retold(body: ReadableStream<Uint8Array>, { requestId, signal }: Recording): AsyncGenerator<string, void, undefined> {
  try {
    for await (const { event, data } of readEvents(body)) {
      if (event === "") yield COMMENT;
      if (event === "segment") yield writeEvent("segment", fromSegment(JSON.parse(data) as Segment));
      if (event === "transcript") return yield writeEvent("transcript", fromReply(JSON.parse(data) as TranscriptReply));
      if (event === "error") return yield writeEvent("error", problem(JSON.parse(data), { requestId }).toBody());
    }
    yield writeEvent("error", new Trouble("cut_off", { requestId }).toBody());
  } catch (error) {
    const late = (signal.reason as { name?: string } | undefined)?.name === "TimeoutError";
    console.error(`[${requestId}] the gateway's stream broke:`, error instanceof Error ? error.message : error);
    yield writeEvent("error", new Trouble(late ? "timeout" : "cut_off", { requestId }).toBody());
  }
}

/** What a generator yields, as a body; whoever stops reading ends the generator. */
function streamOf(pieces: AsyncGenerator<string, void, undefined>): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream({
    async pull(controller) {
      const { value, done } = await pieces.next();
      if (done) controller.close();
      else controller.enqueue(encoder.encode(value));
    },
    async cancel() {
      await pieces.return();
    },
  });
}

function understood(error: unknown, left: AbortSignal, late: AbortSignal): Trouble {
  if (error instanceof Trouble) return error;
  if (left.aborted) return new Trouble("cancelled", { cause: error });
  if (late.aborted) return new Trouble("timeout", { cause: error });
  return new Trouble("no_answer", { cause: error });
}

function refused(trouble: Trouble, requestId: string): Response {
  const told = trouble.requestId === undefined ? trouble.withId(requestId) : trouble;
  if (trouble.failure.status >= 500) console.error(`[${requestId}] ${trouble.code}:`, trouble.cause ?? trouble.message);
  return Response.json(told.toBody(), {
    status: trouble.failure.status || 500,
    headers: { ...headers(requestId), ...(trouble.retryAfter === undefined ? {} : { "Retry-After": String(trouble.retryAfter) }) },
  });
}

function gateway({ url, apiKey }: Settings) {
  return { url, apiKey };
}

/** The only field that a browser may choose; the rest is this app's to decide. */
function fieldsOf(request: Request): TranscribeFields {
  const language = new URL(request.url).searchParams.get("language");
  return language ? { language } : {};
}

function headers(requestId: string): Record<string, string> {
  return { "X-Request-Id": requestId, "Cache-Control": "no-store" };
}
