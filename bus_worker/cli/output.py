"""Where `transcribe` puts a transcript: standard output, or a file in a folder."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bus_worker.cli.terminal import say
from bus_worker.formats import FORMATS, to_json
from bus_worker.messages import Transcript

__all__ = ["Output"]


@dataclass(slots=True)
class Output:
    """Writes the transcripts of these files."""

    files: Sequence[str]
    format: str
    folder: Path | None = None
    _printed: int = field(default=0, init=False)

    @property
    def wrong(self) -> str | None:
        """Why this cannot be, or None."""
        if self.folder is None:
            one_body = self.format in {"srt", "vtt"} and len(self.files) > 1
            return f"{self.format} of several files needs --output DIR" if one_body else None
        counted = Counter(self._target(name) for name in self.files)
        twice = next((target for target, count in counted.items() if count > 1), None)
        return f"--output would write {twice} twice" if twice else None

    def write(self, name: str, transcript: Transcript) -> None:
        """Write one transcript; json is a line a file, text of several files is headed as `head` does.

        Raises:
            OSError: the file cannot be written.
        """
        if self.format == "json":
            body = to_json(transcript, file=name)
        else:
            body = FORMATS[self.format](transcript)
        target = self._target(name)
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(body, encoding="utf-8", errors="backslashreplace")
            return
        if self.format == "text" and len(self.files) > 1:
            gap = "\n" if self._printed else ""
            body = f"{gap}==> {name} <==\n{body}"
        self._printed += 1
        say(body, end="")

    def _target(self, name: str) -> Path | None:
        if self.folder is None:
            return None
        stem = "stdin" if name == "-" else Path(name).stem
        return self.folder / f"{stem}.{'txt' if self.format == 'text' else self.format}"
