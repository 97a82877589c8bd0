"""The whisper stage, opened once for a file of tests, and drafts run through it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bus_worker.messages import Segment
from bus_worker.plugin import SAMPLE_RATE, Draft, Samples
from bus_worker.requests import Options as Asked
from plugins.whisper import Engine, Options, whisper


@dataclass(frozen=True)
class Ears:
    """An opened engine with the operator's options."""

    engine: Engine
    options: Options

    def draft(
        self,
        samples: Samples,
        *,
        stream: bool = False,
        on_segment: Callable[[Segment], None] | None = None,
        **asked: Any,
    ) -> Draft:
        """A draft as it comes to the stage."""
        draft = Draft(options=Asked(**asked), stream=stream, on_segment=on_segment)
        draft.samples, draft.duration = samples, len(samples) / SAMPLE_RATE
        return draft

    async def run(self, draft: Draft, **knobs: Any) -> Draft:
        """The draft after the stage; `knobs` are the stage's options for this one."""
        options = self.options.model_copy(update=knobs)
        await whisper.run(draft, options, self.engine)
        return draft

    async def hear(
        self, samples: Samples, *, knobs: dict[str, Any] | None = None, **asked: Any
    ) -> Draft:
        """What the stage makes of samples."""
        return await self.run(self.draft(samples, **asked), **(knobs or {}))


@contextmanager
def opened(**knobs: Any) -> Iterator[Ears]:
    """The stage, open; a loop of its own keeps its life, any other may use it."""
    options = Options(**knobs)
    assert whisper.open is not None
    with asyncio.Runner() as runner:
        life = whisper.open(options)
        engine = runner.run(life.__aenter__())
        try:
            yield Ears(engine, options)
        finally:
            runner.run(life.__aexit__(None, None, None))
