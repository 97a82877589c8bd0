"""Write the text as a person would."""

from dataclasses import replace

from bus_worker.formats import joined
from bus_worker.plugin import Draft, stage


@stage(needs=("segments",), gives=("text",), version="1")
async def tidy(draft: Draft, _: object) -> None:
    """Clean white space in each segment and join the segments to the text."""
    draft.text = joined(segment.text for segment in draft.segments)
    written = [replace(segment, text=joined([segment.text])) for segment in draft.segments]
    draft.segments = [
        replace(segment, id=number)
        for number, segment in enumerate(segment for segment in written if segment.text)
    ]
