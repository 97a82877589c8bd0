"""`config`: the effective settings as lines for a `.env`, secrets masked."""

import json
import re
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import SecretStr

from bus_worker.addresses import shown_url
from bus_worker.cli.terminal import say
from bus_worker.settings import (
    STAGE_OPTIONS,
    Settings,
    environment,
    load_settings,
    stage_options,
)

__all__ = ["run", "shown", "variable_of"]

MASK = "***"


def run(_: Namespace) -> int:
    """Print what is set, then what has its default, then the options of the pipeline's stages."""
    variables = environment()
    settings = load_settings(variables)
    lines = [
        (name.upper(), _masked(name, getattr(settings, name)), name in settings.model_fields_set)
        for name in Settings.model_fields
    ]  # fmt: skip
    _print("set, by the environment or .env", [(n, v) for n, v, is_set in lines if is_set])
    _print("defaults", [(n, v) for n, v, is_set in lines if not is_set])
    try:
        options = list(_of_stages(settings, variables))
    except ModuleNotFoundError as exc:
        say(f"# options of stages: not known without {exc.name} (pip install 'bus-worker[worker]')")
    else:
        _print("options of the stages in PIPELINE", options)
    return 0


def shown(value: Any) -> str:
    """A value as one writes it in a `.env`."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list | set | frozenset):
        return ",".join(shown(item) for item in value)
    if isinstance(value, dict):
        return json.dumps(value, default=str)
    return str(value)


def variable_of(stage: str, option: str) -> str:
    """The variable that sets a stage's option: its short name where it has one."""
    target = f"{stage}.{option}"
    short = (name for name, targets in STAGE_OPTIONS.items() if target in targets)
    return next(short, f"{stage}__{option}".upper())


def _masked(name: str, value: Any) -> str:
    """A setting as text, without the user, password or token of an address."""
    if name == "redis_url" and value is not None:
        return shown_url(value.get_secret_value())
    return shown(tuple(map(shown_url, value)) if name == "nats_url" else value)


def _of_stages(settings: Settings, variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The options of the pipeline's stages that are not settings under a shorter name."""
    from bus_worker.loader import find_stages  # noqa: PLC0415 - needs the worker extra

    stages = find_stages(settings.plugins_path)
    for stage in (stages[name] for name in settings.pipeline if name in stages):
        options = stage_options(stage.name, stage.options, settings, variables)
        for name in stage.options.model_fields:
            own = f"{stage.name}__{name}".upper()
            if own in variables or variable_of(stage.name, name) == own:
                yield own, shown(getattr(options, name))


def _print(title: str, lines: list[tuple[str, str]]) -> None:
    if lines:
        say(f"# {title}")
    for name, value in lines:
        say(f"{name}={_quoted(value)}")


def _quoted(value: str) -> str:
    """As dotenv reads it back."""
    if re.fullmatch(r"[^\s'\"#$\\`]*", value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
