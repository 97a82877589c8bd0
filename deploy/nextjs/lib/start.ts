// The check at the server's start, apart from `instrumentation.ts`, which is built for runtimes without `process.exit` too.

import { BadSetting, readSettings } from "@/lib/settings";

export function checkSettings(): void {
  try {
    readSettings();
  } catch (error) {
    if (!(error instanceof BadSetting)) throw error;
    console.error(error.message);
    process.exit(1); // Next.js would go on without ever answering
  }
}
