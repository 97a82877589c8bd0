"""The gateway described for programs: `/openapi.json`, made from the models that the code itself uses."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, TypeAdapter

from bus_worker import __version__
from bus_worker import errors as kinds
from bus_worker.errors import BusWorkerError
from bus_worker.messages import Segment, Transcript
from gateway.health import Cleared, Health, Status
from gateway.stats import Stats
from gateway.transcribe import ClipFields

__all__ = [
    "AUDIO", "EVENTS", "NATIVE", "UPLOAD", "Problem", "Section", "TranscriptReply", "document",
    "in_address", "json_answer", "problems", "ref", "response", "upload",
]  # fmt: skip

SCHEMAS = "#/components/schemas/"
COMMON = (kinds.Unauthorized, kinds.Failed)
UPLOAD = (
    kinds.BadRequest, kinds.BadAudio, kinds.AudioTooShort, kinds.AudioTooLong, kinds.ModelNotFound,
    kinds.RequestTimeout, kinds.ClaimExpired, kinds.TooLarge, kinds.RateLimited, kinds.Busy,
    kinds.Stopping, kinds.Unavailable, kinds.DeadlineExceeded,
)  # fmt: skip
"""What may become of an upload."""
EVENTS = {
    "schema": {
        "type": "object",
        "description": "One event.",
        "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    }
}
BINARY = {"type": "string", "format": "binary"}
AUDIO = {"audio/*": {"schema": BINARY}, "application/octet-stream": {"schema": BINARY}}
"""The audio as the body itself."""


class ProblemBody(BaseModel):
    """What went wrong."""

    code: str
    """For programs; each status below lists its codes."""
    message: str
    """For people."""
    retry: bool
    """Whether asking again may help."""
    details: dict[str, Any]
    request_id: str


class Problem(BaseModel):
    """Every error of the native addresses."""

    error: ProblemBody


@dataclass(frozen=True)
class Section:
    """Some paths, and the models that they refer to by their classes' names."""

    paths: Mapping[str, Mapping[str, Any]]
    models: tuple[type[Any], ...] = field(default=())


def document(*sections: Section, keyed: bool) -> dict[str, Any]:
    """The whole, as OpenAPI 3.1.

    Args:
        keyed: whether an API key is asked for.
    """
    schemes = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bus-worker",
            "version": __version__,
            "description": "Speech to text: audio in, transcripts out.",
        },
        "paths": {path: dict(what) for section in sections for path, what in section.paths.items()},
        "components": {
            "schemas": _schemas(model for section in sections for model in section.models),
            **({"securitySchemes": schemes} if keyed else {}),
        },
        **({"security": [{"bearer": []}, {"key": []}]} if keyed else {}),
    }


def ref(model: type[Any]) -> dict[str, str]:
    """A reference to a model's schema."""
    return {"$ref": f"{SCHEMAS}{model.__name__}"}


def json_answer(model: type[Any], description: str) -> dict[str, Any]:
    """An answer of JSON."""
    return response(description, {"application/json": {"schema": ref(model)}})


def problems(
    *errors: type[BusWorkerError],
    envelope: type[BaseModel] = Problem,
    codes: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, dict[str, Any]]:
    """Answers for these errors and those that may happen anywhere, by status.

    Args:
        envelope: the model of their body.
        codes: what our codes are called in it, where they are called otherwise.
    """
    by_status: dict[int, list[type[BusWorkerError]]] = {}
    every: set[type[BusWorkerError]] = {*errors, *COMMON}
    for kind in sorted(every, key=lambda kind: (kind.status, kind.code)):
        by_status.setdefault(kind.status, []).append(kind)
    return {
        str(status): response(
            " ".join(f"`{codes.get(kind.code, kind.code)}`: {kind.__doc__}" for kind in found),
            {"application/json": {"schema": ref(envelope)}},
            again=found[0].retry,
        )
        for status, found in by_status.items()
    }


def upload(model: type[BaseModel], file: str = "The audio.") -> dict[str, Any]:
    """The body of a form with a file and a model's fields."""
    schema = model.model_json_schema(ref_template=SCHEMAS + "{model}")
    properties = {"file": {**BINARY, "description": file}, **_as_text(schema["properties"])}
    required = ["file", *schema.get("required", [])]
    return {
        "schema": {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        },
        "encoding": {
            name: {"style": "form", "explode": True}
            for name, one in properties.items()
            if one.get("type") == "array"
        },
    }


def in_address(form: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fields of a form as they may stand in the address, beside a body that is the audio."""
    return [
        {"name": name, "in": "query", "schema": schema}
        for name, schema in form["schema"]["properties"].items()
        if name != "file"
    ]


def _as_text(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a form: a field is there or not, never null."""
    found = {}
    for name, schema in properties.items():
        options = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
        rest = {
            key: value for key, value in schema.items() if key not in {"anyOf", "default", "title"}
        }
        if "default" in schema and schema["default"] is not None:
            rest["default"] = schema["default"]
        only = options[0] if len(options) == 1 else {"anyOf": options} if options else {}
        found[name] = {**rest, **only}
    return found


def response(
    description: str, content: Mapping[str, Any], *, again: bool = False
) -> dict[str, Any]:
    """An answer: what it means, and what is in it by media type."""
    headers = {"X-Request-Id": {"schema": {"type": "string"}, "description": "For the logs."}}
    if again:
        headers["Retry-After"] = {
            "schema": {"type": "integer"},
            "description": "Seconds after which asking again may help.",
        }
    return {"description": description, "headers": headers, "content": dict(content)}


def _schemas(models: Iterable[type[Any]]) -> dict[str, Any]:
    named = {model.__name__: TypeAdapter(model) for model in models}
    found, shared = TypeAdapter.json_schemas(
        [(name, "serialization", adapter) for name, adapter in named.items()],
        ref_template=SCHEMAS + "{model}",
    )
    own = {name: schema for (name, _), schema in found.items() if "$ref" not in schema}
    return {**shared.get("$defs", {}), **own}


def _get(
    summary: str, answer: Mapping[str, Any], *errors: type[BusWorkerError], free: bool = False
) -> dict[str, Any]:
    said = {"200": answer, **problems(*errors)}
    if free:
        del said["401"]
    return {"get": {"summary": summary, "responses": said, **({"security": []} if free else {})}}


@dataclass(frozen=True)
class TranscriptReply(Transcript):
    """What was said, and how sure the model is of the whole."""

    confidence: float | None = None


def _transcribe() -> dict[str, Any]:
    answer = response(
        "The transcript; with `stream` an event `segment` for each segment as it is decoded, then one"
        " event `transcript` (or `error`), with comments as signs of life between them.",
        {
            "application/json": {"schema": ref(TranscriptReply)},
            "text/event-stream": EVENTS,
        },
    )
    form = upload(ClipFields, "The audio; the content decides its format, not the name.")
    return {
        "post": {
            "summary": "Transcribe a clip",
            "description": "The audio as `file` in a form, or as the body itself with its media type;"
            " then the fields stand in the address.",
            "parameters": in_address(form),
            "requestBody": {"required": True, "content": {"multipart/form-data": form, **AUDIO}},
            "responses": {"200": answer, **problems(*UPLOAD)},
        }
    }


NATIVE = Section(
    paths={
        "/": _get("That it is there, and whether it can serve", json_answer(Status, "Always."), free=True),
        "/live": _get("Whether the gateway runs", json_answer(Status, "It does."), free=True),
        "/ready": _get(
            "Whether a request sent now finds a worker",
            json_answer(Status, "It does."), kinds.Unavailable, free=True,
        ),
        "/health": {
            "get": {
                "summary": "Bus, cache and every worker",
                "responses": {
                    "200": json_answer(Health, "Requests are served; `degraded`: not all is well."),
                    **problems(),
                    "503": json_answer(Health, "`unhealthy`: nothing can be served."),
                },
            }
        },
        "/transcribe": _transcribe(),
        "/cache": {
            "delete": {
                "summary": "Make the workers forget their answers",
                "responses": {
                    "200": json_answer(Cleared, "How many are forgotten."),
                    **problems(kinds.Unavailable),
                },
            }
        },
        "/stats": _get(
            "What the workers count of themselves", json_answer(Stats, "All of them added up, and each.")
        ),
        "/metrics": _get(
            "What this gateway counts, for Prometheus",
            response("Prometheus's text.", {"text/plain": {"schema": {"type": "string"}}}),
        ),
        "/openapi.json": _get("This description", response("OpenAPI 3.1.", {"application/json": {"schema": {"type": "object"}}})),
        "/docs": _get("The same for people", response("A page.", {"text/html": {"schema": {"type": "string"}}})),
    },
    models=(Problem, Status, Health, Stats, Cleared, Segment, TranscriptReply),
)  # fmt: skip
"""The gateway's own addresses."""
