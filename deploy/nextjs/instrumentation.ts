// At the server's start: a wrong setting stops it, in one sentence, before anybody is served.

export async function register(): Promise<void> {
  if (process.env["NEXT_RUNTIME"] !== "nodejs") return;
  const { checkSettings } = await import("@/lib/start");
  checkSettings();
}
