import { afterEach, expect, test, vi } from "vitest";
import { record } from "@/lib/microphone";

afterEach(() => {
  vi.unstubAllGlobals();
});

test.each(["MediaRecorder", "AudioContext"])("a microphone that was opened in vain is given back: no %s", async (broken) => {
  const stop = vi.fn();
  const stream = { getTracks: () => [{ stop }] };
  const build = (fails: boolean) =>
    Object.assign(
      vi.fn(function () {
        if (fails) throw new Error("too many");
      }),
      { isTypeSupported: () => false },
    );
  vi.stubGlobal("navigator", { mediaDevices: { getUserMedia: () => Promise.resolve(stream) } });
  vi.stubGlobal("MediaRecorder", build(broken === "MediaRecorder"));
  vi.stubGlobal("AudioContext", build(true));
  await expect(record(30)).rejects.toMatchObject({ code: "microphone_failed" });
  expect(stop).toHaveBeenCalledOnce();
});
