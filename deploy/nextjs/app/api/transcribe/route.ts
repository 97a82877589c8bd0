// POST /api/transcribe: a recording as the body, its transcript as JSON.

import { answerWhole } from "@/lib/forward";

export const dynamic = "force-dynamic";

export const POST = answerWhole;
