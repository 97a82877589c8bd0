"""The addresses under /v1 as `/openapi.json` tells of them."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from bus_worker import errors as kinds
from bus_worker.errors import BusWorkerError
from gateway.openai import schemas
from gateway.openai.chunking import ServerVad
from gateway.openai.errors import CODES
from gateway.openai.fields import TranscriptionForm, TranslationForm
from gateway.openai.replies import MEDIA_TYPES
from gateway.openapi import EVENTS, UPLOAD, Section, json_answer, problems, ref, response, upload

__all__ = ["OPENAI"]

TEXT = {"schema": {"type": "string"}}
WARNING = {
    "schema": {"type": "string"},
    "description": "What was asked and has no effect, and what the worker warns of.",
}


def _problems(*errors: type[BusWorkerError]) -> dict[str, dict[str, Any]]:
    return problems(*errors, envelope=schemas.Envelope, codes=CODES)


def _hearing(
    summary: str, form: type[BaseModel], brief: type[BaseModel], verbose: type[BaseModel]
) -> dict[str, Any]:
    """An address that takes audio, and answers briefly or at length."""
    plain = {kind.partition(";")[0]: TEXT for kind in MEDIA_TYPES.values()}
    events = {"text/event-stream": EVENTS} if "stream" in form.model_fields else {}
    told = {"schema": {"anyOf": [ref(verbose), ref(brief)]}}
    answer = response("As `response_format` asks.", {**plain, **events, "application/json": told})
    answer["headers"]["X-Warning"] = WARNING
    return {
        "summary": summary,
        "description": "OpenAI's. A field that may come more than once may be written with `[]`.",
        "requestBody": {"required": True, "content": {"multipart/form-data": upload(form)}},
        "responses": {"200": answer, **_problems(*UPLOAD)},
    }


def _looking(
    summary: str, answer: Mapping[str, Any], *errors: type[BusWorkerError]
) -> dict[str, Any]:
    """An address that tells of models."""
    return {
        "summary": summary,
        "responses": {"200": answer, **_problems(kinds.Unavailable, *errors)},
    }


OPENAI = Section(
    paths={
        "/v1/audio/transcriptions": {
            "post": _hearing(
                "Transcribe a clip",
                TranscriptionForm, schemas.Transcription, schemas.VerboseTranscription,
            )
        },
        "/v1/audio/translations": {
            "post": _hearing(
                "Write in English what a clip says",
                TranslationForm, schemas.Translation, schemas.VerboseTranslation,
            )
        },
        "/v1/models": {
            "get": _looking(
                "The models that workers serve", json_answer(schemas.ModelList, "Each model once.")
            )
        },
        "/v1/models/{model}": {
            "get": {
                "parameters": [
                    {
                        "name": "model", "in": "path", "required": True,
                        "schema": {"type": "string"}, "example": "whisper-1",
                    }
                ],
                **_looking(
                    "Whether a model answers", json_answer(schemas.Model, "It does."), kinds.ModelNotFound
                ),
            }
        },
    },
    models=(
        ServerVad, schemas.Envelope, schemas.Model, schemas.ModelList, schemas.Transcription,
        schemas.Translation, schemas.VerboseTranscription, schemas.VerboseTranslation,
    ),
)  # fmt: skip
"""OpenAI's addresses."""
