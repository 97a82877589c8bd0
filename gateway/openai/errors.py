"""An error in OpenAI's words: the envelope that its SDKs read."""

import re
from typing import Any

from bus_worker.errors import BadRequest, BusWorkerError
from gateway.openai.schemas import Envelope, Fault

__all__ = ["CODES", "envelope", "refused"]

CODES = {
    "audio_too_long": "invalid_value",
    "bad_audio": "invalid_value",
    "bad_request": "invalid_value",
    "rate_limited": "rate_limit_exceeded",
    "unauthorized": "invalid_api_key",
}
"""Our codes that the API has a name for; the others go out as they are."""
PARAMS = {
    "audio_too_long": "file",
    "audio_too_short": "file",
    "bad_audio": "file",
    "model_not_found": "model",
    "too_large": "file",
}
"""The field at fault, where the code alone tells."""
ON_THE_BUS = {
    "options.hotwords": "keywords",
    "options.language": "language",
    "options.prompt": "prompt",
    "options.task": "model",
    "options.temperature": "temperature",
    "options.vad": "chunking_strategy",
    "options.word_timestamps": "timestamp_granularities",
    "stages.whisper": "chunking_strategy",
}
"""Fields as a worker names them in a refusal, and ours that led to them."""
QUOTED = re.compile(r"'((?:options|stages)\.\w+)[\w.]*'")


def refused(message: str, param: str, reason: str = "invalid_value") -> BadRequest:
    """A refusal of one field, by its name."""
    return BadRequest(message, field=param, reason=reason)


def envelope(error: BusWorkerError) -> dict[str, Any]:
    """The body of an error's answer."""
    message, param = _own_words(error.message)
    problem = Fault(
        message=message,
        type=_type(error),
        param=error.details.get("field") or param or PARAMS.get(error.code),
        code=error.details.get("reason") or CODES.get(error.code, error.code),
    )
    return Envelope(error=problem).model_dump()


def _own_words(message: str) -> tuple[str, str | None]:
    """A worker's refusal with the field's name as the caller knows it, and that name."""
    found = QUOTED.search(message)
    name = ON_THE_BUS.get(found[1]) if found else None
    if found is None or name is None:
        return message, None
    return message.replace(found[0], f"'{name}'"), name


def _type(error: BusWorkerError) -> str:
    if error.code == "rate_limited":
        return "rate_limit_error"
    return "server_error" if error.status >= 500 else "invalid_request_error"  # noqa: PLR2004 - HTTP
