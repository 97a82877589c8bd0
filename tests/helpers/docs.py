"""Tables and lists that the pages show, made from the code; `make docs` writes them, a test compares."""

import argparse
import ast
import tomllib
import typing
from collections.abc import Iterable
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from bus_worker.cli.parser import build_parser
from bus_worker.errors import BusWorkerError, SetupError
from bus_worker.loader import find_stages
from bus_worker.plugin import Stage
from bus_worker.settings import STAGE_OPTIONS, Settings

ROOT = Path(__file__).resolve().parents[2]


def settings() -> str:
    """The README's table: variable, default, meaning."""
    rows = [
        (f"`{name.upper()}`", _code(_default(field)), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return _table(("Variable", "Default", "What it does"), rows)


def env_example() -> str:
    """`.env.example`: every setting with its default, commented out."""
    lines = [
        "# Every setting with its default. Copy this file to `.env` and change what you need; what the",
        "# environment says wins over `.env`. An option of a stage is set as STAGE__OPTION, for example",
        "# WHISPER__BEAM_SIZE=1: `bus-worker plugins` and plugins/README.md list them.",
    ]
    for name, field in Settings.model_fields.items():
        lines += ["", f"# {field.description}", f"#{name.upper()}={_default(field)}"]
    return "\n".join(lines) + "\n"


def commands() -> str:
    """The README's table: each command with what it takes, and its sentence."""
    return _table(("Command", "What it does"), _commands(build_parser()))


def _commands(parser: argparse.ArgumentParser) -> list[tuple[str, str]]:
    """Every command at or below a parser that has none below itself."""
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if below:
        return [
            row for action in below for leaf in action.choices.values() for row in _commands(leaf)
        ]
    takes = [str(a.metavar) for a in parser._actions if not a.option_strings]
    return [(f"`{' '.join([parser.prog, *takes])}`", parser.description or "")]


def errors() -> str:
    """The README's table: code, HTTP status, whether asking again helps, when."""
    rows = []
    for kind in error_kinds():
        never_sent = issubclass(kind, SetupError)
        status = "" if never_sent else str(kind.status)
        again = "yes" if kind.retry else "no"
        rows.append((f"`{kind.code}`", f"`{kind.__name__}`", status, again, kind.__doc__ or ""))
    return _table(("Code", "Class", "HTTP", "Again?", "When"), rows)


def error_kinds(kind: type[BusWorkerError] = BusWorkerError) -> list[type[BusWorkerError]]:
    """Every error class that has a code of its own, in the order of the tree."""
    own = [kind] if kind.code else []
    below = [k for k in kind.__subclasses__() if k.__module__ == "bus_worker.errors"]
    return own + [found for child in below for found in error_kinds(child)]


def stages() -> str:
    """plugins/README.md: each built-in in the default order, then the others, with its options."""
    found = find_stages()
    order = Settings().pipeline
    names = [*order, *sorted(set(found) - set(order))]
    return "\n\n".join(_stage(found[name]) for name in names)


def _stage(stage: Stage) -> str:
    road = " · ".join(
        f"{word} {', '.join(f'`{name}`' for name in names)}"
        for word, names in (("needs", stage.needs), ("gives", stage.gives))
        if names
    )
    head = f"### `{stage.name}`\n\n{stage.summary}"
    if road:
        head += f" ({road})"
    rows = [
        (
            f"`{option}`",
            f"`{_variable(stage, option)}`",
            _code(_default(field)),
            "yes" if option in stage.per_request else "",
            field.description or "",
        )
        for option, field in stage.options.model_fields.items()
    ]
    if not rows:
        return f"{head}\n\nNo options."
    return f"{head}\n\n" + _table(
        ("Option", "Variable", "Default", "Per request", "What it does"), rows
    )


def _variable(stage: Stage, option: str) -> str:
    """The variable that sets an option: its short name where it has one."""
    target = f"{stage.name}.{option}"
    short = (name for name, targets in STAGE_OPTIONS.items() if target in targets)
    return next(short, f"{stage.name}__{option}".upper())


def modules(package: str = "bus_worker") -> str:
    """The architecture page's map: every room of a package, top to bottom, with its first sentence."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (inside,) = (c for c in contracts["contracts"] if c.get("containers") == [package])
    lines = []
    for layer in inside["layers"]:
        for name in (room.strip(" ()") for room in layer.split("|")):
            path = ROOT / package / name
            if path.is_dir():
                lines.append(f"- `{name}/` {_sentence(path / '__init__.py')}")
                parts = sorted(p for p in path.glob("*.py") if p.stem != "__init__")
                lines.append(f"  ({' '.join(f'`{part.name}`' for part in parts)})")
            elif path.with_suffix(".py").exists():  # one in parentheses may be still to come
                lines.append(f"- `{name}.py` {_sentence(path.with_suffix('.py'))}")
    return "\n".join(lines)


def quote(path: str, language: str) -> str:
    """A file of the tree as a code block."""
    return f"```{language}\n{(ROOT / path).read_text().strip()}\n```"


def _sentence(path: Path) -> str:
    """A module's first line."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def _default(field: FieldInfo) -> str:
    """A field's default as one writes it in `.env`; empty for none."""
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or _holds_secret(field):
        return ""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _holds_secret(field: FieldInfo) -> bool:
    return SecretStr in (field.annotation, *typing.get_args(field.annotation))


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    )


if __name__ == "__main__":
    print(env_example(), end="")  # noqa: T201 - its purpose
