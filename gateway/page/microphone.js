// Sound in: a recording from the microphone, its level while it runs, and audio decoded for the eye.

import { Trouble } from "./ask.js";

const TYPES = ["audio/webm;codecs=opus", "audio/mp4", "audio/ogg;codecs=opus"];
const SHOUT = 0.4; // RMS of a voice at the microphone's limit
const WHISPER = 0.02; // a clip less loud than this is drawn less high
const MOST = 32e6; // bytes of a clip that is decoded for its ribbon
const SLICE = 0.2; // seconds from one piece of a recording to the next
const SLACK = 0.5; // seconds before the limit at which a recording ends: what comes late counts too
const ENDINGS = { "audio/webm": "webm", "audio/mp4": "m4a", "audio/ogg": "ogg" };

function refused(error) {
  if (error.name === "NotAllowedError" || error.name === "SecurityError") return new Trouble("microphone_refused");
  if (error.name === "NotFoundError" || error.name === "OverconstrainedError") return new Trouble("microphone_missing");
  return new Trouble("microphone_failed", { message: error.message });
}

// Starts at once, and ends by itself after `limit` seconds. `level()` is 0 to 1; `stop()` gives { audio, name }.
export async function record(limit) {
  if (!navigator.mediaDevices?.getUserMedia || !globalThis.MediaRecorder) throw new Trouble("microphone_insecure");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  } catch (error) {
    throw refused(error);
  }
  const type = TYPES.find((each) => MediaRecorder.isTypeSupported(each));
  const recorder = new MediaRecorder(stream, type ? { mimeType: type } : {});
  const parts = [];
  recorder.ondataavailable = ({ data }) => {
    parts.push(data);
    if (seconds() > limit - SLACK && recorder.state === "recording") recorder.stop();
  };
  const ended = new Promise((resolve) => recorder.addEventListener("stop", resolve, { once: true }));
  const meter = listen(stream);
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  recorder.start(SLICE * 1000); // its events come in time also where timers do not: in a tab behind others
  const halt = async () => {
    if (recorder.state !== "inactive") recorder.stop();
    await ended;
    for (const track of stream.getTracks()) track.stop();
    await meter.close();
  };
  return {
    level: meter.level,
    ended, // also when the microphone is pulled out
    seconds,
    discard: halt,
    async stop() {
      await halt();
      const plain = recorder.mimeType.split(";")[0];
      return { audio: new Blob(parts, { type: plain }), name: `recording.${ENDINGS[plain] ?? "webm"}` };
    },
  };
}

function listen(stream) {
  const context = new AudioContext();
  context.resume(); // a browser may have it sleep until it is told
  const analyser = new AnalyserNode(context, { fftSize: 2048, smoothingTimeConstant: 0 });
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  return {
    level() {
      analyser.getFloatTimeDomainData(samples);
      return loudness(rms(samples), SHOUT);
    },
    close: () => context.close(),
  };
}

function rms(samples) {
  return Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / (samples.length || 1));
}

// Roughly as the ear has it; `full` is the RMS that counts as 1.
function loudness(level, full) {
  return Math.min(1, (level / full) ** 0.7);
}

// The samples of a clip, or null where this browser cannot read it (the service may still) or had better not.
export async function decode(audio) {
  if (audio.size > MOST) return null;
  const context = new OfflineAudioContext(1, 1, 16000);
  try {
    return await context.decodeAudioData(await audio.arrayBuffer());
  } catch {
    return null;
  }
}

// `bars` levels over the whole of a decoded clip, the loudest of them near 1.
export function levels(buffer, bars) {
  const samples = buffer.getChannelData(0);
  const width = samples.length / bars;
  const heard = Array.from({ length: bars }, (_, bar) => rms(samples.subarray(Math.floor(bar * width), Math.floor((bar + 1) * width))));
  const full = Math.max(WHISPER, ...heard);
  return heard.map((level) => loudness(level, full));
}

// A decoded clip as WAV: what MediaRecorder writes has no index, so players cannot seek in it.
export function wav(buffer) {
  const samples = buffer.getChannelData(0);
  const view = new DataView(new ArrayBuffer(44 + samples.length * 2));
  const text = (at, value) => [...value].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + samples.length * 2, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, buffer.sampleRate, true);
  view.setUint32(28, buffer.sampleRate * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, samples.length * 2, true);
  samples.forEach((x, i) => view.setInt16(44 + i * 2, Math.max(-1, Math.min(1, x)) * 32767, true));
  return new Blob([view], { type: "audio/wav" });
}
