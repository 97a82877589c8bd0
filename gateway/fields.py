"""What may stand beside the audio, in a form or in the address, for the addresses of our own."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import Field, Json, ValidationError

from bus_worker.errors import BadRequest
from bus_worker.requests import Options, refusal

__all__ = ["Fields", "read_fields"]

F = TypeVar("F", bound="Fields")


class Fields(Options):
    """What every upload may say of itself."""

    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=100)] | None = None
    """Which model is to hear it; the server's default when not given."""
    cache: bool = True
    """`false`: heard anew even where the answer is known."""
    stages: Json[dict[str, dict[str, Any]]] = Field(default_factory=dict)
    """Options of stages that allow them per request, as JSON: {stage: {option: value}}."""


def read_fields(kind: type[F], given: Mapping[str, tuple[str, ...]]) -> F:
    """The fields as what they mean; an empty one counts as not given.

    Raises:
        BadRequest: unknown, ill-typed, or twice there; the message names each.
    """
    values: dict[str, Any] = {}
    for name, texts in given.items():
        filled = [text for text in texts if text]
        if name == "hotwords":
            parts = (part.strip() for text in filled for part in text.split(","))
            values[name] = [part for part in parts if part]
        elif len(filled) > 1:
            raise BadRequest(f"'{name[:100]}' came {len(filled)} times", field=name[:100])
        elif filled or name not in kind.model_fields:
            values[name] = "".join(filled)
    try:
        return kind.model_validate(values, strict=False)
    except ValidationError as exc:
        where = exc.errors(include_url=False, include_context=False, include_input=False)[0]["loc"]
        raise BadRequest(*refusal(exc), field=str(where[0])[:100] if where else None) from exc
