// The two routes against a gateway of the test's own, over real HTTP.

import http from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { POST as whole } from "@/app/api/transcribe/route";
import { POST as stream } from "@/app/api/transcribe/stream/route";
import { readEvents } from "@/lib/sse";
import reply from "./reply.json";

type Handler = (request: http.IncomingMessage, response: http.ServerResponse) => void;

let handle: Handler;
let seen: http.IncomingMessage[] = [];
let server: http.Server;

beforeEach(async () => {
  seen = [];
  server = http.createServer((request, response) => {
    seen.push(request);
    handle(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  vi.stubEnv("BUS_WORKER_URL", `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  vi.stubEnv("BUS_WORKER_API_KEY", "sesame");
  vi.stubEnv("MAX_FILE_SIZE", "1000");
  vi.spyOn(console, "error").mockImplementation(() => undefined);
});

afterEach(async () => {
  vi.unstubAllEnvs();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

function asked(body: BodyInit | null, headers: Record<string, string> = {}, signal?: AbortSignal): Request {
  return new Request("http://app.example/api/transcribe?language=en&model=huge", {
    method: "POST",
    body,
    headers: { "Content-Type": "audio/webm;codecs=opus", ...headers },
    ...(signal ? { signal } : {}),
    ...({ duplex: "half" } as object),
  });
}

/** A promise, and what settles it. */
function later<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => undefined;
  const promise = new Promise<T>((settle) => (resolve = settle));
  return { promise, resolve };
}

function pieces(...sizes: number[]): ReadableStream<Uint8Array> {
  const left = [...sizes];
  return new ReadableStream({
    pull(controller) {
      const size = left.shift();
      if (size === undefined) controller.close();
      else controller.enqueue(new Uint8Array(size));
    },
  });
}

function answering(status: number, body: unknown, headers: Record<string, string> = {}): Handler {
  return (request, response) => {
    request.resume().on("end", () => response.writeHead(status, { "X-Request-Id": "theirs", ...headers }).end(typeof body === "string" ? body : JSON.stringify(body)));
  };
}

async function refusal(answer: Response): Promise<[number, string]> {
  const { error } = (await answer.json()) as { error: { code: string } };
  return [answer.status, error.code];
}

test("a recording goes to the gateway as it is, with the server's key, and its transcript comes back", async () => {
  let size = 0;
  handle = (request, response) => {
    request.on("data", (piece: Buffer) => (size += piece.length)).on("end", () => response.end(JSON.stringify(reply)));
  };
  const answer = await whole(asked(pieces(300, 300), { "X-Request-Id": "mine-1" }));
  expect(await answer.json()).toMatchObject({ transcript: "The train leaves at nine. Please bring the tickets.", provider: "whisper", durationMs: 5204 });
  expect([answer.status, answer.headers.get("X-Request-Id"), size]).toEqual([200, "mine-1", 600]);
  expect(seen[0]?.url).toBe("/transcribe?language=en");
  expect(seen[0]?.headers).toMatchObject({ "x-api-key": "sesame", "x-request-id": "mine-1", "content-type": "audio/webm;codecs=opus", "transfer-encoding": "chunked" });
});

test("the gateway hears the beginning while the end is still to come", async () => {
  const began = later<undefined>();
  handle = (request, response) => {
    request.once("data", () => began.resolve(undefined));
    request.on("end", () => response.end(JSON.stringify(reply)));
  };
  const body = new TransformStream<Uint8Array, Uint8Array>();
  const writer = body.writable.getWriter();
  const answer = whole(asked(body.readable));
  void writer.write(new Uint8Array(10));
  await began.promise;
  await writer.close();
  expect((await answer).status).toBe(200);
});

test.each([
  ["another kind of content", { "Content-Type": "text/html" }, [415, "unsupported_type"]],
  ["a form", { "Content-Type": "multipart/form-data; boundary=x" }, [415, "unsupported_type"]],
  ["a compressed body", { "Content-Encoding": "gzip" }, [415, "unsupported_type"]],
  ["a page of another site", { "Sec-Fetch-Site": "cross-site" }, [403, "forbidden"]],
  ["a length over the limit", { "Content-Length": "1001" }, [413, "too_large"]],
  ["nothing", { "Content-Length": "0" }, [400, "no_audio"]],
])("%s is refused before a byte is read", async (_, headers, wanted) => {
  const pull = vi.fn();
  const body = new ReadableStream<Uint8Array>({ pull }, { highWaterMark: 0 });
  expect(await refusal(await whole(asked(body, headers as Record<string, string>)))).toEqual(wanted);
  expect([pull.mock.calls.length, seen.length]).toEqual([0, 0]);
});

test("a body that grows over the limit while it comes is cut off", async () => {
  const ended = later<string>();
  handle = (request) => {
    request.resume().on("end", () => ended.resolve("whole")).on("error", () => ended.resolve("cut off"));
  };
  expect(await refusal(await stream(asked(pieces(600, 600))))).toEqual([413, "too_large"]);
  expect(await ended.promise).toBe("cut off");
});

test("a body without a byte is no recording, whatever its headers say", async () => {
  handle = (request) => void request.resume();
  expect(await refusal(await whole(asked(pieces())))).toEqual([400, "no_audio"]);
});

test.each([
  ["busy", 503, 503, "busy"],
  ["audio_too_short", 400, 400, "audio_too_short"],
  ["unauthorized", 401, 502, "unauthorized"],
  ["failed", 500, 502, "failed"],
])("the gateway's %s is told with its id and when to ask again", async (code, status, mine, told) => {
  const message = "the audio has 0.05 s";
  handle = answering(status, { error: { code, message, retry: true, details: {}, request_id: "theirs" } }, { "Retry-After": "7" });
  for (const route of [whole, stream]) {
    const answer = await route(asked(pieces(10)));
    expect([answer.status, answer.headers.get("Retry-After")]).toEqual([mine, "7"]);
    const { error } = (await answer.json()) as { error: Record<string, unknown> };
    expect(error).toMatchObject({ code: told, requestId: "theirs", retryAfter: 7 });
    expect(error["detail"]).toBe(mine === 400 ? message : undefined);
  }
});

test.each([
  [413, "<h1>nginx</h1>", [413, "too_large"]],
  [504, "", [504, "deadline_exceeded"]],
  [502, "<h1>nginx</h1>", [502, "no_answer"]],
  [200, "not JSON", [502, "no_answer"]],
])("what a proxy on the way says (%d) is understood", async (status, body, wanted) => {
  handle = answering(status, body);
  expect(await refusal(await whole(asked(pieces(10))))).toEqual(wanted);
});

test("nobody there, and nobody who answers in time, are told apart", async () => {
  handle = () => undefined;
  vi.stubEnv("BUS_WORKER_TIMEOUT", "1");
  expect(await refusal(await whole(asked(pieces(10))))).toEqual([504, "timeout"]);
  vi.stubEnv("BUS_WORKER_URL", "http://127.0.0.1:1");
  expect(await refusal(await whole(asked(pieces(10))))).toEqual([502, "no_answer"]);
});

test("segments are told as they come, and the transcript at the end", async () => {
  let more: (() => void) | undefined;
  handle = (request, response) => {
    request.resume();
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write(`: working\n\nevent: segment\ndata: ${JSON.stringify(reply.segments[0])}\n\n`);
    more = () => response.end(`event: transcript\ndata: ${JSON.stringify(reply)}\n\n`);
  };
  const answer = await stream(asked(pieces(10)));
  expect(answer.headers.get("Content-Type")).toMatch(/^text\/event-stream/);
  expect(seen[0]?.url).toBe("/transcribe?language=en&stream=true");
  const events = readEvents(answer.body as ReadableStream<Uint8Array>);
  expect((await events.next()).value).toMatchObject({ event: "" });
  expect((await events.next()).value).toMatchObject({ event: "segment", data: JSON.stringify({ start: 0, end: 2.4, text: "The train leaves at nine.", confidence: 0.819 }) });
  more?.();
  const last = await events.next();
  expect(last.value).toMatchObject({ event: "transcript" });
  expect((await events.next()).done).toBe(true);
});

test.each([
  ["an error event", "event: error\ndata: {\"error\": {\"code\": \"deadline_exceeded\", \"message\": \"late\"}}\n\n", "deadline_exceeded"],
  ["an end before the transcript", "event: segment\ndata: {\"text\": \" a\", \"start\": 0, \"end\": 1, \"confidence\": -0.1}\n\n", "cut_off"],
  ["what is no event", "event: transcript\ndata: {\n\n", "cut_off"],
])("%s ends a stream with an error", async (_, body, code) => {
  handle = answering(200, body, { "Content-Type": "text/event-stream" });
  const answer = await stream(asked(pieces(10)));
  const events = [];
  for await (const event of readEvents(answer.body as ReadableStream<Uint8Array>)) events.push(event);
  expect(events.at(-1)?.event).toBe("error");
  expect(JSON.parse(events.at(-1)?.data ?? "")).toMatchObject({ error: { code } });
});

test("whoever leaves ends the gateway's work, before the answer and during it", async () => {
  for (const begun of [false, true]) {
    const left = later<undefined>();
    const came = later<undefined>();
    handle = (request, response) => {
      request.resume();
      response.on("close", () => left.resolve(undefined));
      if (begun) response.writeHead(200, { "Content-Type": "text/event-stream" }).write(": working\n\n");
      came.resolve(undefined);
    };
    const leaving = new AbortController();
    const answer = stream(asked(pieces(10), {}, leaving.signal));
    await came.promise;
    if (begun) {
      await (await answer).body?.cancel();
    } else {
      leaving.abort();
      expect(await refusal(await answer)).toEqual([499, "cancelled"]);
    }
    await left.promise;
  }
});
