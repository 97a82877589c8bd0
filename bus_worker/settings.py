"""Every knob, its default and its variable. The only room that reads the environment.

A field's variable is its name in capitals. `.env` in the current folder is read too; the
environment wins. An empty value is an unset one.
"""

import os
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from bus_worker.addresses import (
    checked_model,
    checked_origins,
    checked_redis,
    checked_servers,
    scheme_and_rest,
)
from bus_worker.errors import BadSetting
from bus_worker.webhook_rules import checked_allow, checked_secret

__all__ = [
    "STAGE_OPTIONS",
    "Settings",
    "bad_setting",
    "environment",
    "inherited",
    "load_settings",
    "stage_options",
]

STAGE_OPTIONS: dict[str, tuple[str, ...]] = {
    "WHISPER_MODEL": ("whisper.model",),
    "MODEL_NAME": ("whisper.model_name",),
    "MODEL_DIR": ("whisper.model_dir",),
    "WHISPER_DEVICE": ("whisper.device",),
    "WHISPER_COMPUTE_TYPE": ("whisper.compute_type",),
    "WHISPER_REPLICAS": ("whisper.replicas",),
    "WHISPER_THREADS": ("whisper.threads",),
    "MIN_AUDIO_DURATION": ("limits.min_duration",),
    "MAX_AUDIO_DURATION": ("decode.max_duration", "limits.max_duration"),
    "ALLOWED_AUDIO_FORMATS": ("decode.formats",),
}
"""Settings that are a stage's option under an older, shorter name; `STAGE__OPTION` wins."""


def _split(value: Any) -> Any:
    """`a, b` as ("a", "b"); anything but text as it is."""
    if not isinstance(value, str):
        return value
    return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)


Listed = Annotated[tuple[str, ...], BeforeValidator(_split)]


class Settings(BaseModel):
    """The worker's, the client's and the command line's settings."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    nats_url: Annotated[Listed, AfterValidator(checked_servers)] = ("nats://localhost:4222",)
    """Where the bus is; several servers of one cluster may be given, comma-separated."""
    nats_user: str | None = None
    """User name on the bus."""
    nats_password: SecretStr | None = None
    """Password on the bus."""
    nats_token: SecretStr | None = None
    """Token on the bus."""
    nats_creds: Path | None = None
    """A `.creds` file for the bus."""
    nats_nkey: Path | None = None
    """An nkey seed file for the bus."""
    nats_ca: Path | None = None
    """Certificate authority that signed the bus's certificate."""
    nats_cert: Path | None = None
    """Client certificate for the bus."""
    nats_key: Path | None = None
    """Key of the client certificate."""
    nats_inbox_prefix: str = Field("_INBOX", pattern=r"^_INBOX(\.[A-Za-z0-9_-]+)*$")
    """Where answers arrive; set it where users of the bus may read only their own inboxes."""
    subject_prefix: str = Field("stt", pattern=r"^[A-Za-z0-9_-]+$")
    """First word of every subject, and the service's name for `nats micro`."""
    queue_group: str = Field("stt-workers", pattern=r"^[A-Za-z0-9_-]+$")
    """The group whose members share the requests."""
    default_model: Annotated[str | None, AfterValidator(checked_model)] = None
    """The model a client asks for when it names none (`WHISPER_MODEL` if unset)."""

    whisper_model: str = "base"
    """The model: a name (`base`, `large-v3`, `org/repo`) or a folder."""
    model_name: str | None = None
    """The name under which a model from a folder is served (the folder's own if unset)."""
    model_dir: Path | None = None
    """Where models are kept; unset: the user's cache folder."""
    whisper_device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs."""
    whisper_compute_type: str = "int8"
    """Arithmetic of the model (`int8`, `int8_float16`, `float16`, `float32`)."""
    whisper_replicas: int | None = Field(None, ge=1, le=64)
    """Clips decoded at once on one set of weights; unset: cores // threads (`up` shares the cores out among its workers)."""
    whisper_threads: int = Field(1, ge=1, le=64)
    """CPU threads of one replica; one each is fastest."""
    worker_slots: int | None = Field(None, ge=1, le=256)
    """Requests in hand at once; unset: what the model takes (its replicas)."""

    max_audio_duration: float = Field(30.0, gt=0, allow_inf_nan=False)
    """Longest audio taken, in seconds."""
    min_audio_duration: float = Field(0.1, ge=0, allow_inf_nan=False)
    """Shortest audio taken, in seconds."""
    max_file_size: int = Field(10_485_760, ge=1)
    """Largest upload taken, in bytes."""
    allowed_audio_formats: Listed = (
        "wav", "mp3", "ogg", "flac", "webm", "m4a", "mp4", "opus", "aac",
    )  # fmt: skip
    """Formats taken; the content decides, not the name."""

    pipeline: Listed = ("decode", "limits", "normalize", "silence", "whisper", "tidy")
    """The stages, in order."""
    plugins_path: Listed = ()
    """More folders (or single files) with stages."""

    request_timeout: float = Field(60.0, gt=0, allow_inf_nan=False)
    """Seconds a request may take when its caller sets no deadline."""
    stuck_after: float = Field(60.0, gt=0, allow_inf_nan=False)
    """Seconds past a deadline after which a thread that never returns makes the worker leave."""
    drain_timeout: float = Field(30.0, gt=0, allow_inf_nan=False)
    """Seconds that a stopping worker gives the requests in hand."""

    job_max_audio_duration: float = Field(14_400.0, gt=0, allow_inf_nan=False)
    """Longest recording taken as a job, in seconds."""
    job_max_file_size: int = Field(524_288_000, ge=1)
    """Largest file taken as a job, in bytes."""
    job_results_ttl: float = Field(86_400.0, ge=1, le=604_800, allow_inf_nan=False)
    """Seconds that a job's status and transcript are kept after its end."""
    job_slots: int | None = Field(None, ge=0, le=256)
    """Slots of a worker that jobs may take; unset: all but one, which is kept for requests (of one slot, that one)."""

    redis_url: Annotated[SecretStr | None, AfterValidator(checked_redis)] = None
    """The Redis in which workers share their cache; unset: `up` starts one, `run` keeps its own in memory."""
    cache_enabled: bool = True
    """Answer a request that was answered before from the cache, and equal ones at once with one hearing."""
    cache_ttl: float = Field(3600.0, gt=0, le=31_536_000, allow_inf_nan=False)
    """Seconds that an answer is kept."""

    api_workers: int = Field(2, ge=1, le=256)
    """Worker processes that `up` starts."""
    api_host: str = "0.0.0.0"  # noqa: S104 - a service's door; without a key it warns
    """Address at which the gateway listens."""
    api_port: int = Field(8000, ge=0, le=65_535)
    """Port of the gateway; 0 takes any that is free."""
    api_key: SecretStr | None = None
    """What callers of the gateway must show; several are comma-separated. Unset: open to all."""
    api_key_requests: int = Field(64, ge=1)
    """Uploads that one key, or all callers where none is set, may have in hand at once on one gateway."""
    upload_timeout: float = Field(60.0, gt=0, allow_inf_nan=False)
    """Seconds that an upload may take to arrive; one of over `MAX_FILE_SIZE` may take as much longer as it is larger."""
    openai_models: Listed = (
        "whisper-1", "gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe",
        "gpt-4o-mini-transcribe-2025-12-15",
    )  # fmt: skip
    """Names of OpenAI's that mean the default model to the gateway."""
    cors_origins: Annotated[Listed, AfterValidator(checked_origins)] = ("http://localhost:3000",)
    """Web pages of these origins may call the gateway from a browser; `*` lets all."""

    webhook_secret: Annotated[SecretStr | None, AfterValidator(checked_secret)] = None
    """Signs webhooks as Standard Webhooks does: `whsec_` and base64, or any long text; unset: they are not signed."""
    webhook_allow: Annotated[Listed, AfterValidator(checked_allow)] = ()
    """Host names, IP addresses and networks that webhooks may reach although they are private, also by `http://`."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """How much is logged."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto`: for people on a terminal, JSON elsewhere."""
    log_text: bool = False
    """Write what was heard to the log as well: for looking into one's own audio, never where callers' is heard."""
    metrics_port: int | None = Field(None, ge=0, le=65_535)
    """Port of a worker's `/metrics`, `/live` and `/ready`; 0 takes any that is free; unset: none (workers of `up`: 0)."""
    metrics_host: str = "127.0.0.1"
    """Address at which a worker serves them; a container sets 0.0.0.0."""

    otel_exporter_otlp_endpoint: str | None = Field(None, pattern=r"^https?://[^\s/]+.*$")
    """Where traces are sent to by OTLP over HTTP (`http://localhost:4318`); unset: nowhere."""

    @property
    def asked_model(self) -> str:
        """The model that requests without a model go to."""
        return self.default_model or self.model_name or Path(self.whisper_model).name

    @property
    def chosen_model(self) -> str | None:
        """The model that a client here asks for, or None where nobody chose: the server's default."""
        chosen = {"default_model", "model_name", "whisper_model"} & self.model_fields_set
        return self.asked_model if chosen else None


def environment(folder: Path | None = None) -> dict[str, str]:
    """The process's variables over those of `.env` in `folder` (the current one), empty ones left out.

    Raises:
        BadSetting: `.env` cannot be read.
    """
    path = (folder or Path.cwd()) / ".env"
    try:
        kept = {**dotenv_values(path, encoding="utf-8-sig"), **os.environ}
    except UnicodeDecodeError as exc:
        raise BadSetting(f"{path} is not UTF-8 text: save it as UTF-8") from exc
    except OSError as exc:
        raise BadSetting(f"{path} cannot be read: {exc.strerror}") from exc
    return {name.upper(): value for name, value in kept.items() if value}


def inherited(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child of ours: this process's, with `variables` over it (empty: unset)."""
    return {**os.environ, **variables}


def load_settings(variables: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process.

    Raises:
        BadSetting: a value is not allowed; names the variable, the value and what is.
    """
    variables = environment() if variables is None else variables
    named = {name: _variable_of(name, variables) for name in Settings.model_fields}
    known = {
        name: _folded(Settings, name, variables[named[name]])
        for name in named
        if named[name] in variables
    }
    try:
        settings = Settings.model_validate(known)
    except ValidationError as exc:
        raise bad_setting(exc, Settings, variables, named.__getitem__) from exc
    least, most = settings.min_audio_duration, settings.max_audio_duration
    if least > most:
        variable = named["min_audio_duration"]
        raise BadSetting(
            f"{variable}={least:g}: must not be more than MAX_AUDIO_DURATION={most:g}, or no audio is taken",
            variable=variable,
        )
    return settings


def _variable_of(name: str, variables: Mapping[str, str]) -> str:
    """The variable that a setting is read from: the stage's own spelling, where it is used, wins."""
    targets = STAGE_OPTIONS.get(name.upper(), ())
    own = targets[0].replace(".", "__").upper() if len(targets) == 1 else ""
    return own if own in variables else name.upper()


def stage_options(
    stage: str,
    model: type[BaseModel],
    settings: Settings,
    variables: Mapping[str, str] | None = None,
) -> BaseModel:
    """A stage's options: its defaults, the old names' values over them, `STAGE__OPTION` over those.

    Raises:
        BadSetting: a `STAGE__…` variable that is no option of the stage, or a value not allowed.
    """
    variables = environment() if variables is None else variables
    values: dict[str, Any] = {}
    written: dict[str, str] = {}
    for variable, targets in STAGE_OPTIONS.items():
        for target in targets:
            owner, _, option = target.partition(".")
            value = getattr(settings, variable.lower())
            if owner == stage and option in model.model_fields and value is not None:
                values[option] = _folded(model, option, value)
                written[option] = variable
    prefix = f"{stage.upper()}__"
    for variable, text in variables.items():
        if not variable.startswith(prefix):
            continue
        option = variable.removeprefix(prefix).lower()
        if option not in model.model_fields:
            allowed = ", ".join(f"{prefix}{name.upper()}" for name in model.model_fields)
            raise BadSetting(
                f"{variable} is set, but stage {stage!r} has no such option; it has {allowed or 'none'}"
            )
        value = _split(text) if _takes_list(model, option) else text
        values[option] = _folded(model, option, value)
        written[option] = variable
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        raise bad_setting(
            exc, model, variables, lambda name: written.get(name, prefix + name.upper())
        ) from exc


def _takes_list(model: type[BaseModel], option: str) -> bool:
    annotation = model.model_fields[option].annotation
    kinds = (
        get_args(annotation)
        if get_origin(annotation) in (Union, types.UnionType)
        else (annotation,)
    )
    return any(get_origin(kind) in (list, tuple, set, frozenset) for kind in kinds)


def _folded(model: type[BaseModel], name: str, value: Any) -> Any:
    """A word that is one of a field's words but for its capitals, as that word."""
    if isinstance(value, tuple):
        return tuple(_folded(model, name, item) for item in value)
    field = model.model_fields[name]
    words = {str(word).casefold(): word for word in _words(field.annotation)}
    return words.get(value.casefold(), value) if isinstance(value, str) else value


def _words(annotation: Any) -> tuple[Any, ...]:
    """The words that a field takes; none where it takes any text."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    inner = get_args(annotation)
    return () if str in inner else tuple(word for part in inner for word in _words(part))


def bad_setting(
    exc: ValidationError, model: type[BaseModel], variables: Mapping[str, str], variable_of: Any
) -> BadSetting:
    """One sentence for the first wrong value: the variable, the value (never a secret's), what is allowed."""
    error = exc.errors(include_url=False, include_context=False)[0]
    name = str(error["loc"][0]) if error["loc"] else ""
    variable = variable_of(name)
    field = model.model_fields.get(name)
    secret = field is not None and "Secret" in str(field.annotation)
    value = variables.get(variable, error.get("input"))
    if name.endswith("_url") and isinstance(value, str):
        # The last @ of all counts: a comma or a slash may be part of a password.
        scheme, rest = scheme_and_rest(value)
        value = f"{scheme}***@{rest.rpartition('@')[2]}" if "@" in rest else value
    shown = "(hidden)" if secret else repr(value)[:100]
    why = error["msg"].removeprefix("Value error, ")
    return BadSetting(f"{variable}={shown}: {why[:1].lower()}{why[1:]}", variable=variable)
