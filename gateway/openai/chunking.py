"""`chunking_strategy`: `auto`, or an object in any of the ways that forms write one."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bus_worker.requests import refusal
from gateway.openai.errors import refused

__all__ = ["PART", "ServerVad", "read_chunking"]

PART = "chunking_strategy["
"""How the name of one field of the object begins."""


class ServerVad(BaseModel):
    """How speech is told from silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    type: Literal["server_vad"]
    prefix_padding_ms: Annotated[int, Field(ge=0)] | None = None
    silence_duration_ms: Annotated[int, Field(ge=50, le=10_000)] | None = None
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None

    def options(self) -> dict[str, Any]:
        """As options of the whisper stage."""
        asked = {"vad_threshold": self.threshold, "vad_min_silence_ms": self.silence_duration_ms}
        return {name: value for name, value in asked.items() if value is not None}


def read_chunking(value: str | None, parts: dict[str, str]) -> Literal["auto"] | ServerVad | None:
    """The strategy.

    Args:
        value: `auto`, or the object as JSON.
        parts: the object's fields as the SDKs send them, one by one (`chunking_strategy[type]`).

    Raises:
        BadRequest: neither.
    """
    if not parts and (value is None or value == "auto"):
        return value  # type: ignore[return-value]  # mypy does not narrow text to a literal
    try:
        given = parts if value is None else {**json.loads(value), **parts}
        return ServerVad.model_validate(given)
    except ValidationError as exc:
        raise refused(*refusal(exc, "chunking_strategy."), "chunking_strategy") from exc
    except (ValueError, TypeError, RecursionError) as exc:
        raise refused(
            "'chunking_strategy': 'auto', or an object whose 'type' is 'server_vad'",
            "chunking_strategy",
        ) from exc
