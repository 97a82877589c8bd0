// The app in a real Chromium, on the real gateway, bus, worker and model.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { failure } from "@/lib/errors";
import { APP, busOf, FOLDER, freePort, Program, silent, speak, startApp, startGateway, startService } from "./house";

const KEY = "sesame-open";
/** Long enough for the service to hear them one after the other: it cuts into pieces of four seconds or more. */
const SENTENCES = [
  "The train to London leaves at seven in the morning, and it will stop in every village on the way.",
  "Please bring your ticket and your passport, because somebody will look at them before you go on board.",
];
const PERCENT = path.join(FOLDER, "percent");
const SHOTS = process.env["E2E_SHOTS"];

let port: string;
let service: Program;
let browser: Browser;
let app: string;
/** The same build with other variables, and behind it a gateway that waits for three seconds only. */
let hasty: string;
const started: Program[] = [];
const pages: Page[] = [];
const wrong: string[] = [];

beforeAll(async () => {
  const spoken = speak("spoken.wav", SENTENCES, 1.5);
  writeFileSync(PERCENT, "100");
  const [appPort, hastyPort, hastyGateway] = [await freePort(), await freePort(), await freePort()];
  port = await freePort();
  [app, hasty] = [`http://127.0.0.1:${appPort}`, `http://127.0.0.1:${hastyPort}`];
  const common = { BUS_WORKER_API_KEY: KEY, TRANSCRIPTION_CHECK_SECONDS: "1" };
  service = await startService(port, KEY);
  started.push(
    ...(await Promise.all([
      startGateway(busOf(service), { API_PORT: hastyGateway, API_KEY: KEY, REQUEST_TIMEOUT: "3", MAX_FILE_SIZE: "3000000" }),
      startApp("app", appPort, { ...common, BUS_WORKER_URL: `http://127.0.0.1:${port}`, TRANSCRIPTION_ROLLOUT_FILE: PERCENT, MAX_AUDIO_DURATION: "13" }),
      startApp("hasty", hastyPort, {
        ...common,
        BUS_WORKER_URL: `http://127.0.0.1:${hastyGateway}`,
        NEXT_PUBLIC_TRANSCRIPTION_PROVIDER: "webspeech", // the build knew nothing of it
      }),
    ])),
  );
  browser = await chromium.launch({
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--use-fake-device-for-media-stream", `--use-file-for-fake-audio-capture=${spoken}`],
  });
});

afterEach(async () => {
  await Promise.all(pages.splice(0).map((page) => page.context().close()));
  expect(wrong.splice(0)).toEqual([]);
});

afterAll(async () => {
  await browser.close();
  await Promise.all([...started, service].map((program) => program.stop()));
});

async function open(address: string, options: BrowserContextOptions = {}, permissions = ["microphone"]): Promise<Page> {
  const context = await browser.newContext({ permissions, ...options });
  const page = await context.newPage();
  pages.push(page);
  page.setDefaultTimeout(30_000);
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("console", (line) => {
    if (/hydrat|Content Security Policy|Warning:/i.test(line.text())) wrong.push(line.text());
  });
  await page.goto(address);
  return page;
}

/** Waits until the indicator tells this provider, for this reason. */
async function indicates(page: Page, provider: string, reason: string, mood: string): Promise<string> {
  const found = page.locator(`.indicator[data-provider=${provider}][data-reason=${reason}][data-mood=${mood}]`);
  await found.waitFor();
  return found.innerText();
}

async function ready(page: Page): Promise<void> {
  await indicates(page, "whisper", "configured", "good");
}

function phase(page: Page, name: string): Promise<unknown> {
  return page.locator(`.desk[data-phase=${name}]`).waitFor();
}

async function written(page: Page): Promise<string> {
  await page.locator(".words[data-final=true]").waitFor();
  return page.locator(".text").innerText();
}

/** Tries again until there are words: on a busy machine three seconds are not much. */
async function retried(page: Page): Promise<string> {
  await page.click("#retry");
  await page.locator(".words[data-final=true], .trouble").waitFor();
  return (await page.locator(".trouble").count()) ? retried(page) : written(page);
}

async function trouble(page: Page, code: string): Promise<string> {
  await page.locator(`.trouble[data-code=${code}]`).waitFor();
  const said = await page.locator(".trouble").innerText();
  expect(said).toContain(failure(code).sentence);
  expect(said).toContain(failure(code).next);
  return said;
}

async function shot(page: Page, name: string): Promise<void> {
  if (!SHOTS) return;
  mkdirSync(SHOTS, { recursive: true });
  await page.screenshot({ path: path.join(SHOTS, `${name}.png`), fullPage: true });
}

/** Everything that the words' place has shown since this was called. */
async function watchWords(page: Page): Promise<() => Promise<{ text: string; final: string }[]>> {
  await page.evaluate(() => {
    const seen: { text: string; final: string }[] = [];
    Object.assign(window, { seen });
    new MutationObserver(() => {
      const words = document.querySelector<HTMLElement>(".words");
      const text = words?.querySelector(".text")?.textContent ?? "";
      const final = words?.dataset["final"] ?? "";
      if (text && (seen.at(-1)?.text !== text || seen.at(-1)?.final !== final)) seen.push({ text, final });
    }).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
  });
  return () => page.evaluate(() => (window as unknown as { seen: { text: string; final: string }[] }).seen);
}

test("what is spoken is written until the limit, its beginning before its end", async () => {
  const page = await open(app);
  await ready(page);
  await shot(page, "wide-idle");
  const seen = await watchWords(page);
  await page.click("#record");
  await phase(page, "recording");
  await page.waitForFunction(() => Number(document.querySelector(".meter")?.getAttribute("aria-valuenow")) > 10);
  await page.getByRole("timer").getByText("0:02").waitFor();
  await shot(page, "wide-recording");
  await page.getByText("Stopped at 13 seconds, the most that is taken.").waitFor();
  const text = await written(page);
  expect(text).toMatch(/train to London/i);
  expect(text).toMatch(/passport/i);
  await shot(page, "wide-done");
  const partial = (await seen()).filter(({ final }) => final === "false");
  expect(partial.length).toBeGreaterThan(0);
  expect(partial[0]?.text).toMatch(/train to London/i);
  expect(partial[0]?.text).not.toMatch(/passport/i);
  expect(await page.locator(".facts").innerText()).toMatch(/^English · \d+ % sure · \d+\.\d s · by Whisper$/);
});

test("on a telephone, in the dark, by keyboard alone", async () => {
  const page = await open(app, { viewport: { width: 375, height: 740 }, colorScheme: "dark" });
  await ready(page);
  await page.keyboard.press("Tab");
  expect(await page.evaluate(() => document.activeElement?.id)).toBe("record");
  await page.keyboard.press("Enter");
  await phase(page, "recording");
  await page.keyboard.press("Escape");
  await phase(page, "idle");
  await page.keyboard.press("Enter");
  await phase(page, "recording");
  await page.keyboard.press("Tab"); // to Cancel, which is not there any more once it was pressed
  await page.keyboard.press("Enter");
  await phase(page, "idle");
  expect(await page.evaluate(() => document.activeElement?.id)).toBe("record");
  await page.keyboard.press("Enter");
  await page.getByRole("timer").getByText("0:04").waitFor();
  await shot(page, "narrow-recording");
  await page.keyboard.press("Enter");
  expect(await written(page)).toMatch(/train to London/i);
  await shot(page, "narrow-done");
  expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(375);
});

test("what cannot be heard is refused in a sentence, and the key never reaches the browser", async () => {
  const page = await open(app);
  const received: string[] = [];
  page.on("response", (response) => void response.text().then((text) => received.push(text), () => undefined));
  await page.reload();
  await ready(page);
  await page.setInputFiles("#file", silent("short.wav", 0.05));
  expect(await trouble(page, "audio_too_short")).toContain("at least 0.1 s");
  expect(await page.locator("#retry").count()).toBe(0);
  await shot(page, "wide-too-short");
  await page.setInputFiles("#file", { name: "page.wav", mimeType: "audio/wav", buffer: readFileSync(path.join(APP, "README.md")) });
  await trouble(page, "bad_audio");
  await page.setInputFiles("#file", { name: "page.html", mimeType: "text/html", buffer: Buffer.from("<p>") });
  await trouble(page, "unsupported_type");
  await page.setInputFiles("#file", { name: "big.wav", mimeType: "audio/wav", buffer: Buffer.alloc(11_000_000) });
  expect(await trouble(page, "too_large")).toContain("10485760");
  await page.setInputFiles("#file", silent("silent.wav", 1));
  expect(await written(page)).toBe("No words were heard in this recording.");
  expect(received.length).toBeGreaterThan(5);
  expect(received.filter((text) => text.includes(KEY))).toEqual([]);
});

test("this app's server and the gateway both answer 413", async () => {
  const page = await open(`${hasty}/?transcription=whisper`);
  await indicates(page, "whisper", "override", "good");
  await page.setInputFiles("#file", { name: "big.wav", mimeType: "audio/wav", buffer: Buffer.alloc(4_000_000) });
  expect(await trouble(page, "too_large")).toContain("3000000");
  const status = await page.evaluate(async () => {
    const answer = await fetch("/api/transcribe", { method: "POST", body: new Blob([new Uint8Array(11_000_000)], { type: "audio/wav" }) });
    return [answer.status, ((await answer.json()) as { error: { code: string } }).error.code];
  });
  expect(status).toEqual([413, "too_large"]);
});

test("while every worker is busy the recording is kept, and heard when there is room", async () => {
  const page = await open(`${hasty}/?transcription=whisper`);
  await indicates(page, "whisper", "override", "good");
  const leaving = new AbortController();
  const load = Promise.all(Array.from({ length: 6 }, (_, at) => keepBusy(at, leaving.signal)));
  await page.waitForFunction(async ([url, key]) => {
    const answer = await fetch(url as string, { headers: { "X-API-Key": key as string } }).catch(() => undefined);
    const { workers = [] } = ((await answer?.json()) ?? {}) as { workers?: { in_flight: number }[] };
    return workers.some(({ in_flight }) => in_flight > 0);
  }, [`http://127.0.0.1:${port}/health`, KEY]);
  await page.setInputFiles("#file", speak("later.wav", SENTENCES.slice(1), 0.1));
  await trouble(page, "busy");
  await shot(page, "wide-busy");
  leaving.abort();
  await load;
  expect(await retried(page)).toMatch(/passport/i);
});

/** Recordings one after the other, none of which the cache knows. */
async function keepBusy(who: number, signal: AbortSignal): Promise<void> {
  const body = readFileSync(speak(`load-${who}.wav`, [...SENTENCES, ...SENTENCES], 0.2));
  while (!signal.aborted) {
    await fetch(`http://127.0.0.1:${port}/transcribe?cache=false&beam_size=10`, {
      method: "POST",
      body,
      headers: { "Content-Type": "audio/wav", "X-API-Key": KEY },
      signal,
    }).catch((error: unknown) => {
      if (!signal.aborted) throw error;
    });
  }
}

test("the percentage moves an open page there and back, and an override goes before it", async () => {
  const page = await open(app);
  await ready(page);
  writeFileSync(PERCENT, "0");
  expect(await indicates(page, "webspeech", "not_in_rollout", "good")).toContain("0 %");
  await page.goto(`${app}/?transcription=whisper`);
  await indicates(page, "whisper", "override", "good");
  await page.goto(app);
  await indicates(page, "whisper", "override", "good");
  await page.getByRole("link", { name: "Undo" }).click();
  await indicates(page, "webspeech", "not_in_rollout", "good");
  writeFileSync(PERCENT, "100");
  await ready(page);
});

test("a page that nobody looks at asks nothing, and asks at once when somebody does", async () => {
  const page = await open(app);
  await ready(page);
  const look = (hidden: boolean) =>
    page.evaluate((value) => {
      Object.defineProperty(document, "hidden", { configurable: true, value });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
  await look(true);
  await page.waitForLoadState("networkidle"); // what was asked before is answered
  let asked = 0;
  page.on("request", (request) => (asked += Number(request.url().endsWith("/api/health"))));
  await page.waitForTimeout(2500); // TRANSCRIPTION_CHECK_SECONDS is 1
  expect(asked).toBe(0);
  const asks = page.waitForRequest("**/api/health");
  await look(false);
  await asks;
});

test("switched off by a variable that the build did not know, in browsers with recognition of their own and without", async () => {
  const page = await open(hasty);
  expect(await indicates(page, "webspeech", "configured", "good")).toContain("switched off");
  await page.addInitScript(() => {
    Object.assign(window, { SpeechRecognition: undefined, webkitSpeechRecognition: undefined }); // as in Firefox
  });
  await page.reload();
  expect(await indicates(page, "webspeech", "configured", "bad")).toContain("This browser has no recognition of its own.");
  await page.click("#record");
  await trouble(page, "speech_unsupported");
});

test("a microphone that may not be used, and a wrong setting, are told in a sentence", async () => {
  const page = await open(app, {}, []);
  await ready(page);
  await page.click("#record");
  await trouble(page, "microphone_refused");
  const next = path.join(APP, "node_modules/next/dist/bin/next");
  const refused = new Program("refused", process.execPath, [next, "start", "-p", await freePort()], { TRANSCRIPTION_ROLLOUT_PERCENT: "ten" }, APP);
  expect(await refused.ended()).toBe(1);
  expect(refused.said).toContain('TRANSCRIPTION_ROLLOUT_PERCENT is "ten"; it must be a number from 0 to 100');
});

test("a service on the bus itself gets the same words", async () => {
  const args = ["run", "--silent", "publish-example", "--", "--language", "en", path.join(FOLDER, "spoken.wav"), path.join(FOLDER, "short.wav")];
  const example = new Program("publish", "npm", args, { NATS_URL: busOf(service), WHISPER_MODEL: "base" }, APP);
  expect(await example.ended()).toBe(1);
  expect(example.said).toMatch(/spoken\.wav.*train to London/i);
  expect(example.said).toMatch(/short\.wav: audio_too_short: /);
});

test("when the service stops, the browser's recognition stands in; what was recorded is heard when it is back", async () => {
  const [page, other] = [await open(app), await open("about:blank", { viewport: { width: 375, height: 740 } })];
  await ready(page);
  await page.click("#record");
  await page.getByRole("timer").getByText("0:04").waitFor();
  await service.stop();
  await page.click("#record");
  await trouble(page, "no_answer");
  expect(await indicates(page, "webspeech", "unhealthy", "bad")).toContain("does not answer");
  await shot(page, "wide-away");

  await other.addInitScript(pretendRecognition);
  await other.goto(app);
  await indicates(other, "webspeech", "unhealthy", "bad");
  await other.click("#record");
  await other.getByText("hello from").waitFor();
  await other.click("#record");
  expect(await written(other)).toBe("hello from the browser");
  expect(await other.locator(".facts").innerText()).toMatch(/English · 91 % sure · .* · by your browser/);
  await shot(other, "narrow-away");

  service = await startService(port, KEY);
  await ready(page);
  await page.click("#retry");
  expect(await written(page)).toMatch(/train to London/i);
});

/** Chromium's own recognition asks its maker's servers; this one knows what was said. */
function pretendRecognition(): void {
  class Pretended extends EventTarget {
    lang = "";
    onstart: (() => void) | null = null;
    onresult: ((event: unknown) => void) | null = null;
    onend: (() => void) | null = null;

    start(): void {
      setTimeout(() => {
        this.onstart?.();
        this.tell("hello from", false);
      }, 50);
    }

    stop(): void {
      this.tell("hello from the browser", true);
      setTimeout(() => this.onend?.(), 50);
    }

    private tell(transcript: string, isFinal: boolean): void {
      this.onresult?.({ results: [Object.assign([{ transcript, confidence: 0.91 }], { isFinal })] });
    }
  }
  Object.assign(window, { SpeechRecognition: Pretended, webkitSpeechRecognition: Pretended });
}
