// POST /api/transcribe/stream: a recording as the body, its text as server-sent events while it is heard.

import { answerStream } from "@/lib/forward";

export const dynamic = "force-dynamic";

export const POST = answerStream;
