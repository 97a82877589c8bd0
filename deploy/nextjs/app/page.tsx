import { Recorder } from "@/components/Recorder";
import { readSettings } from "@/lib/settings";
import { choiceFor } from "@/lib/who";

export default async function Page() {
  const settings = readSettings();
  const { maxDuration, maxBytes, checkSeconds } = settings;
  // Nobody asks the service here: a page is drawn at once, however the service is.
  return (
    <main>
      <h1>Say it. Read it.</h1>
      <Recorder choice={await choiceFor(settings, null)} limits={{ maxDuration, maxBytes }} checkSeconds={checkSeconds} />
      <footer>
        <p>
          With Whisper your recording goes to this app’s own service and nowhere else. With Web Speech your browser’s maker may hear it.
        </p>
      </footer>
    </main>
  );
}
