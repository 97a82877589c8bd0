// A transcript as files: text, SubRip, WebVTT; the same bytes as `bus_worker.formats` writes.

// Start and end in milliseconds and the text of each segment that has any. A blank line would end
// a cue, and a cue that does not end after its start is invalid.
function cues(segments) {
  return segments
    .map(({ start, end, text }) => {
      const lines = text.split(/\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/).map((line) => line.trim());
      const from = Math.max(0, Math.round(start * 1000));
      return [from, Math.max(from + 1, Math.round(end * 1000)), lines.filter(Boolean).join("\n")];
    })
    .filter(([, , text]) => text);
}

function stamp(milliseconds, point) {
  const two = (number) => String(Math.floor(number)).padStart(2, "0");
  const seconds = milliseconds / 1000;
  const rest = String(milliseconds % 1000).padStart(3, "0");
  return `${two(seconds / 3600)}:${two((seconds / 60) % 60)}:${two(seconds % 60)}${point}${rest}`;
}

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", "\0": "\ufffd" };

export const FORMATS = {
  txt: {
    type: "text/plain",
    write: ({ text }) => `${text.split(/\s+/).filter(Boolean).join(" ")}\n`,
  },
  srt: {
    type: "application/x-subrip",
    write: ({ segments }) =>
      cues(segments)
        .map(([from, to, text], at) => `${at + 1}\n${stamp(from, ",")} --> ${stamp(to, ",")}\n${text.replace(/-{2,}>/g, "->")}\n`)
        .join("\n"),
  },
  vtt: {
    type: "text/vtt",
    write: ({ segments }) =>
      ["WEBVTT\n", ...cues(segments).map(([from, to, text]) => `${stamp(from, ".")} --> ${stamp(to, ".")}\n${text.replace(/[&<>\0]/g, (c) => ESCAPES[c])}\n`)].join("\n"),
  },
};
