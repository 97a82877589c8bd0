// Talks to a gateway with the vendors' own packages; prints what each case gave, as one JSON map.
// node drive.mjs <address> <clip> [case]... (all of them, if none is named)
import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { createOpenAI } from "@ai-sdk/openai";
import { experimental_transcribe as transcribe } from "ai";
import OpenAI, { toFile } from "openai";

const [address, clip, ...names] = process.argv.slice(2);
const baseURL = `${address}/v1`;
let requests = 0;
const counted = (url, ...rest) => {
  if (String(url).startsWith(address)) requests += 1; // the package also tries what fetch can do
  return fetch(url, ...rest);
};
const client = (apiKey) => new OpenAI({ baseURL, apiKey, fetch: counted });
const openai = client("right");
const upload = (options) => ({ file: createReadStream(clip), model: "whisper-1", ...options });
const ask = (options, from = openai) => from.audio.transcriptions.create(upload(options));
const ai = createOpenAI({ baseURL, apiKey: "right", fetch: counted });
const hear = async (model, openaiOptions) => {
  const { text, segments, language, durationInSeconds } = await transcribe({
    model: ai.transcription(model),
    audio: await readFile(clip),
    ...(openaiOptions && { providerOptions: { openai: openaiOptions } }),
  });
  return { text, segments, language, durationInSeconds };
};

const cases = {
  json: () => ask(),
  // The package sends nothing again whose file is a stream.
  from_memory: async () => ask({ file: await toFile(await readFile(clip), "clip.wav") }),
  text: () => ask({ response_format: "text" }),
  srt: () => ask({ response_format: "srt" }),
  vtt: () => ask({ response_format: "vtt" }),
  verbose: () => ask({ response_format: "verbose_json" }),
  words: () => ask({ response_format: "verbose_json", timestamp_granularities: ["word"] }),
  both: () => ask({ response_format: "verbose_json", timestamp_granularities: ["word", "segment"] }),
  every_field: () =>
    ask({
      chunking_strategy: "auto",
      keywords: ["one", "two"],
      language: "en",
      prompt: "Before.",
      temperature: 0.2,
    }),
  stream: async () => {
    const events = [];
    for await (const event of await ask({ stream: true })) events.push(event);
    return events;
  },
  translation: () => openai.audio.translations.create(upload()),
  models: async () => (await openai.models.list()).data.map((model) => model.id),
  model: () => openai.models.retrieve("pretend"),
  request_id: async () => (await ask())._request_id,
  no_such_model: () => ask({ model: "huge" }),
  no_such_format: () => ask({ response_format: "diarized_json" }),
  wrong_key: () => ask({}, client("wrong")),
  ai_sdk: () => hear("whisper-1"),
  ai_sdk_verbose: () => hear("whisper-1", { language: "en", timestampGranularities: ["segment"] }),
  ai_sdk_words: () => hear("whisper-1", { timestampGranularities: ["word"] }),
  ai_sdk_json: () => hear("gpt-4o-transcribe", { timestampGranularities: ["segment"] }),
  ai_sdk_no_such_model: () => hear("huge"),
};

const told = (error) => ({
  error: error.constructor.name,
  ...Object.fromEntries(
    ["status", "statusCode", "param", "code", "type", "message", "requestID"].map((name) => [name, error[name]]),
  ),
});

const results = {};
for (const name of names.length ? names : Object.keys(cases)) {
  requests = 0;
  const gave = await cases[name]().catch(told);
  results[name] = { gave, requests };
}
console.log(JSON.stringify(results));
