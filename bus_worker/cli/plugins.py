"""`plugins`: the stages that are found, for people or as JSON."""

from argparse import Namespace
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import to_json

from bus_worker.cli.config import shown, variable_of
from bus_worker.cli.terminal import say
from bus_worker.loader import find_stages
from bus_worker.plugin import Stage
from bus_worker.settings import load_settings

__all__ = ["run"]


def run(args: Namespace) -> int:
    """Describe every stage, those of the pipeline first and in order."""
    settings = load_settings()
    order = list(settings.pipeline)
    found = find_stages(settings.plugins_path)
    names = [name for name in order if name in found]
    stages = [
        _describe(found[name], order) for name in [*names, *sorted(found.keys() - set(names))]
    ]
    if args.json:
        say(to_json(stages, indent=2).decode())
    else:
        say("\n\n".join(_written(stage) for stage in stages))
    return 0


def _describe(stage: Stage, order: list[str]) -> dict[str, Any]:
    return {
        "name": stage.name,
        "summary": stage.summary,
        "version": stage.version,
        "position": order.index(stage.name) + 1 if stage.name in order else None,
        "needs": stage.needs,
        "gives": stage.gives,
        "source": stage.source,
        "options": [
            {
                "name": name,
                "variable": variable_of(stage.name, name),
                "required": field.is_required(),
                "default": None if field.is_required() else _default(field),
                "per_request": name in stage.per_request,
                "description": " ".join((field.description or "").split()),
            }
            for name, field in stage.options.model_fields.items()
        ],
    }


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def _written(stage: dict[str, Any]) -> str:
    place = f"{stage['position']}. in PIPELINE" if stage["position"] else "not in PIPELINE"
    lines = [f"{stage['name']}  (version {stage['version']}, {place}, {stage['source']})"]
    if stage["summary"]:
        lines.append(f"  {stage['summary']}")
    lines += [f"  {word} {', '.join(stage[word])}" for word in ("needs", "gives") if stage[word]]
    for option in stage["options"]:
        value = "(must be set)" if option["required"] else shown(option["default"])
        asked = "  (a request may set it)" if option["per_request"] else ""
        lines.append(f"    {option['variable']}={value}{asked}")
        if option["description"]:
            lines.append(f"        {option['description']}")
    return "\n".join(lines)
