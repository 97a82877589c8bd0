import { expect, test } from "vitest";
import { COMMENT, readEvents, writeEvent, type ServerEvent } from "@/lib/sse";

async function read(...pieces: (string | Uint8Array)[]): Promise<ServerEvent[]> {
  const bytes = pieces.map((piece) => (typeof piece === "string" ? new TextEncoder().encode(piece) : piece));
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const piece of bytes) controller.enqueue(piece);
      controller.close();
    },
  });
  const events: ServerEvent[] = [];
  for await (const event of readEvents(body)) events.push(event);
  return events;
}

test("what is written is read, wherever the line cuts it, letters of several bytes too", async () => {
  const bytes = new TextEncoder().encode(writeEvent("segment", { text: "Zoë 🎙\n\nnew" }) + COMMENT + writeEvent("transcript", {}));
  for (let cut = 0; cut <= bytes.length; cut++) {
    const events = await read(bytes.slice(0, cut), bytes.slice(cut));
    expect(events.map(({ event }) => event)).toEqual(["segment", "", "transcript"]);
    expect(JSON.parse(events[0]?.data ?? "")).toEqual({ text: "Zoë 🎙\n\nnew" });
  }
});

test("lines may end as on Windows, data may have several lines, and half an event is none", async () => {
  expect(await read("event: a\r\ndata: 1\r\ndata: 2\r\n\r\ndata: 3\n\nevent: cut\ndata: 4")).toEqual([
    { event: "a", data: "1\n2" },
    { event: "message", data: "3" },
  ]);
});
