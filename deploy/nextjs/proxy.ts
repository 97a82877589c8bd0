// Before a page is drawn: the user gets a lasting id, and an override from the address is kept.

import { NextResponse, type NextRequest } from "next/server";
import { isProvider, OVERRIDE_COOKIE, OVERRIDE_QUERY, USER_COOKIE } from "@/lib/config";

const YEAR = 365 * 24 * 3600;
const DAY = 24 * 3600;

export function proxy(request: NextRequest): NextResponse {
  const keep: { name: string; value: string; maxAge: number }[] = [];
  if (!request.cookies.get(USER_COOKIE)?.value) keep.push({ name: USER_COOKIE, value: crypto.randomUUID(), maxAge: YEAR });
  const override = request.nextUrl.searchParams.get(OVERRIDE_QUERY);
  if (isProvider(override)) keep.push({ name: OVERRIDE_COOKIE, value: override, maxAge: DAY });
  else if (override !== null) keep.push({ name: OVERRIDE_COOKIE, value: "", maxAge: 0 });

  for (const { name, value } of keep) request.cookies.set(name, value); // this very request is to see them too
  const response = NextResponse.next({ request: { headers: request.headers } });
  const secure = request.nextUrl.protocol === "https:" || request.headers.get("X-Forwarded-Proto") === "https";
  for (const cookie of keep) response.cookies.set({ ...cookie, path: "/", sameSite: "lax", httpOnly: true, secure });
  return response;
}

// Pages only, and only asked for without a body: what passes here has its body kept in memory, which nobody's must be.
export const config = {
  matcher: [
    {
      source: "/",
      missing: [
        { type: "header", key: "content-length" },
        { type: "header", key: "transfer-encoding" },
      ],
    },
  ],
};
