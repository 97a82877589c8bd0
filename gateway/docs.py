"""The gateway described for people: one page, written here, that loads nothing from anywhere."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

__all__ = ["docs", "openapi"]

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code { font: 0.9em ui-monospace, monospace; }
section { border: 1px solid var(--line); border-radius: 0.5rem; margin: 1.5rem 0; padding: 0 1rem 1rem; }
h2 { font-size: 1.1rem; } h2 span { border-radius: 0.3rem; background: var(--soft); padding: 0.1rem 0.5rem; }
table { border-collapse: collapse; width: 100%; } div { overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.8rem 0.3rem 0; border-top: 1px solid var(--line); }
"""


async def openapi(request: Request) -> Response:
    """The description for programs."""
    return JSONResponse(request.app.state.openapi)


async def docs(request: Request) -> Response:
    """The description for people."""
    page = "".join(_page(request.app.state.openapi))
    return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})


def _page(said: Mapping[str, Any]) -> Iterator[str]:
    info = said["info"]
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{STYLE}</style><main><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
    yield f"<p>{escape(info['description'])} For programs: <code>/openapi.json</code>.</p>"
    if "security" in said:
        yield "<p>Show the key as <code>Authorization: Bearer …</code> or <code>X-API-Key: …</code>.</p>"
    for path, methods in said["paths"].items():
        for method, what in methods.items():
            yield from _operation(method, path, what)
    yield "</main></html>"


def _operation(method: str, path: str, what: Mapping[str, Any]) -> Iterator[str]:
    yield f"<section><h2><span>{escape(method.upper())}</span> <code>{escape(path)}</code></h2>"
    yield f"<p>{escape(what['summary'])}. {_text(what.get('description', ''))}</p>"
    content = what.get("requestBody", {}).get("content", {})
    form = content.get("multipart/form-data", {}).get("schema", {})
    if form:
        needed = form.get("required", ())
        rows = [
            (
                f"{name} (needed)" if name in needed else name,
                _kind(one),
                one.get("description", ""),
            )
            for name, one in form["properties"].items()
        ]
        yield from _table(("Field", "What goes in", "What it does"), rows)
    beside = [
        (one["name"], _kind(one["schema"]), one.get("description", ""))
        for one in what.get("parameters", ())
        if one["name"] not in form.get("properties", ())
    ]
    if beside:
        yield from _table(("Header, or in the address", "What goes in", "What it does"), beside)
    answers = [(status, "", one["description"]) for status, one in what["responses"].items()]
    yield from _table(("Status", "", "When"), answers)
    yield "</section>"


def _kind(schema: Mapping[str, Any]) -> str:
    """What a field takes, in few words."""
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    kind = schema.get("format") or schema.get("type", "text")
    bounds = [
        f"{word} {schema[key]}"
        for key, word in (("minimum", "from"), ("maximum", "to"), ("pattern", "like"))
        if key in schema
    ]
    return " ".join([str(kind), *bounds])


def _table(head: tuple[str, ...], rows: list[tuple[str, str, str]]) -> Iterator[str]:
    yield f"<div><table><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"
    for name, *rest in rows:
        cells = "".join(f"<td>{_text(cell)}</td>" for cell in rest)
        yield f"<tr><td><code>{escape(name)}</code></td>{cells}</tr>"
    yield "</table></div>"


def _text(cell: str) -> str:
    """Plain text in which backquotes mark code."""
    parts = escape(cell).split("`")
    return "".join(f"<code>{p}</code>" if odd % 2 else p for odd, p in enumerate(parts))
