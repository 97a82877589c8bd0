"""What `transcribe --local` hears with: a worker's pipeline in this process."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus_worker.cli.ears import Ears, Wish
from bus_worker.errors import DeadlineExceeded, Failed
from bus_worker.logs import set_up_logs
from bus_worker.messages import Transcript, pack
from bus_worker.requests import read_request
from bus_worker.settings import environment, load_settings
from bus_worker.worker import open_transcriber

__all__ = ["in_this_process"]


@asynccontextmanager
async def in_this_process(wish: Wish) -> AsyncIterator[Ears]:
    """The pipeline that the settings describe.

    Raises:
        SetupError: it cannot be opened; one sentence.
    """
    variables = environment()
    if wish.model:
        for name in ("WHISPER__MODEL", "MODEL_NAME", "WHISPER__MODEL_NAME"):
            variables.pop(name, None)
        variables["WHISPER_MODEL"] = wish.model
    settings = load_settings(variables)
    asked = "log_level" in settings.model_fields_set
    set_up_logs(settings.log_level if asked else "CRITICAL", settings.log_format)
    limit = wish.timeout or settings.request_timeout
    async with open_transcriber(settings, variables=variables) as transcriber:

        async def hear(audio: bytes, kind: str | None) -> Transcript:
            received = time.monotonic()
            request = read_request(
                pack({"audio": audio, "format": kind, "options": wish.options})
            )  # checked as on the bus
            draft = transcriber.draft(request, deadline=received + limit)
            try:
                async with asyncio.timeout(limit):
                    return await transcriber.run(
                        draft, request, request_id=secrets.token_hex(8), received=received
                    )
            except TimeoutError:
                raise DeadlineExceeded from None
            except Failed as exc:
                raise Failed(f"{exc.message} (LOG_LEVEL=ERROR shows why)", **exc.details) from exc
            finally:
                draft.give_up()

        serves = transcriber.pipeline.serves
        yield Ears(hear, serves.slots if serves else 1)
