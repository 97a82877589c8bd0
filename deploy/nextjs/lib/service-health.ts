// How the service is, asked once for everybody: however many browsers look, the gateway hears one question in a few seconds.

import { health, type Connection, type Health } from "@/lib/bus-worker";
import { Trouble } from "@/lib/errors";

const KEPT_MS = 3000;

interface Known {
  until: number;
  problem: Promise<string | null>;
}

const known = new Map<string, Known>();

/** Why the service cannot serve now, as a sentence; null where it can. */
export function serviceProblem(connection: Connection, now = Date.now()): Promise<string | null> {
  const found = known.get(connection.url);
  if (found && found.until > now) return found.problem;
  const problem = look(connection);
  known.clear(); // there is one gateway; a changed address leaves nothing behind
  known.set(connection.url, { until: Infinity, problem }); // who comes while it is asked waits for the same answer
  void problem.then(() => known.set(connection.url, { until: Date.now() + KEPT_MS, problem }));
  return problem;
}

async function look(connection: Connection): Promise<string | null> {
  try {
    return problemOf(await health(connection));
  } catch (error) {
    if (error instanceof Trouble) return error.message;
    return "The speech service does not answer.";
  }
}

export function problemOf({ status, bus, workers }: Health): string | null {
  if (status !== "unhealthy") return null;
  if (bus === "away") return "The speech service has lost its message bus.";
  return workers.length ? "No worker of the speech service is ready." : "No worker of the speech service is running.";
}
