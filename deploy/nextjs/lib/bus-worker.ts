// The gateway's typed client, for this server: its types are made from the gateway's own /openapi.json (npm run api-types).

import { Trouble, type About } from "@/lib/errors";
import type { components, paths } from "@/lib/gateway";

export type TranscriptReply = components["schemas"]["TranscriptReply"];
export type Segment = components["schemas"]["Segment"];
export type Health = components["schemas"]["Health"];
export type Problem = components["schemas"]["Problem"];
export type TranscribeFields = NonNullable<paths["/transcribe"]["post"]["parameters"]["query"]>;

export interface Connection {
  url: string;
  apiKey: string;
}

export interface Recording {
  body: ReadableStream<Uint8Array>;
  contentType: string;
  requestId: string;
  signal: AbortSignal;
}

const HEALTH_WITHIN_MS = 3000;

/** Sends a recording as it comes; the answer's body is a transcript, or events with `fields.stream`. Throws Trouble otherwise. */
export async function transcribe(connection: Connection, recording: Recording, fields: TranscribeFields): Promise<Response> {
  const { body, contentType, requestId, signal } = recording;
  const answer = await fetch(`${connection.url}/transcribe?${query(fields)}`, {
    method: "POST",
    ...streamed(body),
    headers: { ...keyOf(connection), "Content-Type": contentType, "X-Request-Id": requestId },
    redirect: "error",
    cache: "no-store",
    signal,
  });
  if (answer.ok) return answer;
  throw await refusal(answer, requestId);
}

/** How the gateway, the bus and the workers are; an unhealthy service answers too. */
export async function health(connection: Connection): Promise<Health> {
  const answer = await fetch(`${connection.url}/health`, {
    headers: { ...keyOf(connection), Accept: "application/json" },
    redirect: "error",
    cache: "no-store",
    signal: AbortSignal.timeout(HEALTH_WITHIN_MS),
  });
  const body: unknown = await answer.json();
  if (isHealth(body)) return body;
  throw problem(body, {}); // the gateway's refusal, or JSON of something else: a proxy, another service
}

const STATUSES: readonly unknown[] = ["healthy", "degraded", "unhealthy"] satisfies Health["status"][];

function isHealth(body: unknown): body is Health {
  return typeof body === "object" && body !== null && "status" in body && STATUSES.includes(body.status);
}

/** What an error of the gateway's means, with its id and when to ask again. */
export async function refusal(answer: Response, requestId: string): Promise<Trouble> {
  const about = { requestId: answer.headers.get("X-Request-Id") ?? requestId, retryAfter: seconds(answer.headers.get("Retry-After")) };
  let body: unknown;
  try {
    body = await answer.json();
  } catch (cause) {
    return new Trouble(PLAIN[answer.status] ?? "no_answer", { ...about, cause }); // something between us and the gateway wrote it
  }
  return problem(body, about);
}

/** An error as the gateway tells it, in an answer or in a stream. */
export function problem(body: unknown, about: About): Trouble {
  const error = (body as Partial<Problem> | null)?.error;
  if (typeof error?.code !== "string") return new Trouble("no_answer", about);
  const trouble = new Trouble(error.code, { ...about, detail: error.message });
  const callers = [400, 413].includes(trouble.failure.status);
  return callers ? trouble : new Trouble(error.code, { ...about, cause: error.message });
}

const PLAIN: Readonly<Record<number, string>> = { 401: "unauthorized", 408: "request_timeout", 413: "too_large", 429: "rate_limited", 503: "unavailable", 504: "deadline_exceeded" };

/** The body goes out while it still comes in; the DOM's types do not know what Node asks for then. */
function streamed(body: ReadableStream<Uint8Array>): RequestInit & { duplex: "half" } {
  return { body: body as BodyInit, duplex: "half" };
}

function keyOf({ apiKey }: Connection): Record<string, string> {
  return apiKey ? { "X-API-Key": apiKey } : {};
}

function query(fields: TranscribeFields): string {
  const pairs = Object.entries(fields).flatMap(([name, value]) => (Array.isArray(value) ? value.map((one) => [name, one]) : [[name, String(value)]]));
  return new URLSearchParams(pairs).toString();
}

function seconds(text: string | null): number | undefined {
  const value = Number(text ?? NaN);
  return value >= 0 ? value : undefined;
}
