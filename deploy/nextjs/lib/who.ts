// The choice for one user, as the server makes it: for the page when it is first drawn, and for pages that ask again.

import { cookies } from "next/headers";
import { getTranscriptionProvider, isProvider, OVERRIDE_COOKIE, USER_COOKIE, type Choice } from "@/lib/config";
import { readPercent, type Settings } from "@/lib/settings";

/** Who hears the user of this request. An app with accounts gives its own user id in place of the cookie. */
export async function choiceFor(settings: Settings, problem: string | null): Promise<Choice> {
  const jar = await cookies();
  const override = jar.get(OVERRIDE_COOKIE)?.value;
  return getTranscriptionProvider({
    configured: settings.provider,
    percent: await readPercent(settings),
    userId: jar.get(USER_COOKIE)?.value ?? "",
    override: isProvider(override) ? override : null,
    problem,
  });
}
