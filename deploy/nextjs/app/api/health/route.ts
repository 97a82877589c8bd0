// GET /api/health: how the service is, and who hears this user now.

import type { Choice } from "@/lib/config";
import { serviceProblem } from "@/lib/service-health";
import { readSettings } from "@/lib/settings";
import { choiceFor } from "@/lib/who";

export const dynamic = "force-dynamic";

export interface HealthReply {
  healthy: boolean;
  /** Why it is not. */
  problem: string | null;
  choice: Choice;
}

export async function GET(): Promise<Response> {
  const settings = readSettings();
  const problem = await serviceProblem(settings);
  const reply: HealthReply = { healthy: problem === null, problem, choice: await choiceFor(settings, problem) };
  return Response.json(reply, { headers: { "Cache-Control": "private, no-store" } });
}
