"""`/docs`: the endpoints as one page, written from the OpenAPI document; nothing on it is fetched from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse

METHODS = ("get", "post", "put", "patch", "delete")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
ERROR = {
    "description": "What is wrong, and with which parameter",
    "content": {"application/json": {"schema": {
        "type": "object", "required": ["error"], "properties": {"error": {
            "type": "object", "required": ["message", "type", "param", "code"], "properties": {
                "message": {"type": "string"}, "type": {"type": "string"},
                "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]},
            },
        }},
    }}},
}  # fmt: skip
_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881}
body{font:1rem/1.55 system-ui,sans-serif;max-width:58rem;margin:0 auto;padding:1rem 1rem 4rem;overflow-wrap:anywhere}
h1{margin:.5rem 0 0}details{border:1px solid var(--line);border-radius:.5rem;margin:.5rem 0;padding:.25rem .75rem}
summary{cursor:pointer;padding:.35rem 0}code,pre{font:.9em/1.45 ui-monospace,monospace}
pre{background:var(--soft);border-radius:.4rem;padding:.6rem;overflow-x:auto;overflow-wrap:normal}
b.method{display:inline-block;min-width:4.6rem}small{opacity:.75;margin-left:.5rem}table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem .3rem 0;border-top:1px solid var(--line)}
th{font-weight:600}
"""

router = APIRouter()


def describe(app: FastAPI) -> None:
    """Errors of the OpenAPI document as they really are, in place of the framework's own."""
    written = app.openapi

    def openapi() -> dict[str, Any]:
        document = written()
        for operations in document.get("paths", {}).values():
            for method in METHODS:
                answers = operations.get(method, {}).get("responses", {})
                if answers.pop("422", None) is not None or answers:
                    answers.setdefault("default", ERROR)
        return document

    app.openapi = openapi


@router.get("/docs", include_in_schema=False)
def docs(request: Request) -> HTMLResponse:
    """The page."""
    return HTMLResponse(page(request.app.openapi()), headers={"Content-Security-Policy": POLICY})


def page(document: Mapping[str, Any]) -> str:
    """An OpenAPI document as HTML: every text of it is shown as text."""
    about = document.get("info", {})
    title = escape(f"{about.get('title', '')} {about.get('version', '')}")
    parts = [f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
             f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head><body>'
             f"<h1>{title}</h1>"
             '<p>Every endpoint, as <a href="/openapi.json">/openapi.json</a> describes it.</p>']  # fmt: skip
    for path, operations in document.get("paths", {}).items():
        for method in METHODS:
            if method in operations:
                parts += _operation(path, method, operations[method], document)
    return "".join([*parts, "</body></html>\n"])


def _operation(path: str, method: str, told: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    about = told.get("description") or told.get("summary") or ""
    yield (f'<details><summary><b class="method">{method.upper()}</b> <code>{escape(path)}</code>'
           f" <small>{escape(about.partition('.')[0])}</small></summary>"
           f"<p>{escape(about)}</p>")  # fmt: skip
    rows = [(each.get("name", ""), each.get("schema", {}), each.get("required", False), each.get("in", ""))
            for each in told.get("parameters", ())]  # fmt: skip
    kinds = told.get("requestBody", {}).get("content", {})
    for kind, content in kinds.items():
        schema = _resolved(content.get("schema", {}), document)
        needed = schema.get("required", ())
        rows += [(name, each, name in needed, "form" if "form" in kind else "body")
                 for name, each in schema.get("properties", {}).items()]  # fmt: skip
    if rows:
        yield "<table><tr><th>Name</th><th>Where</th><th>Type</th><th>Meaning</th></tr>"
        for name, schema, needed, where in rows:
            its = _resolved(schema, document)
            said = [its.get("description", ""), f"default {json.dumps(its['default'])}" if "default" in its else ""]
            yield (f"<tr><td><code>{escape(str(name))}</code>{' (needed)' if needed else ''}</td>"
                   f"<td>{escape(where)}</td><td>{escape(_type(its))}</td>"
                   f"<td>{escape('. '.join(filter(None, said)))}</td></tr>")  # fmt: skip
        yield "</table>"
    yield f"<pre>{escape(_curl(path, method, kinds))}</pre></details>"


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference stands for."""
    found: Any = schema
    if str(schema.get("$ref", "")).startswith("#/"):
        found = document
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            found = found.get(part, {})
    return found


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema or "const" in schema:
        return " | ".join(json.dumps(each) for each in schema.get("enum", [schema.get("const")]))
    if kinds := schema.get("anyOf"):
        return " | ".join(dict.fromkeys(_type(each) for each in kinds))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    bounds = [f"{sign} {schema[name]}" for name, sign in (("minimum", "from"), ("maximum", "to")) if name in schema]
    return " ".join([str(schema.get("type", "any")), *bounds])


def _curl(path: str, method: str, kinds: Mapping[str, Any]) -> str:
    words = ["curl", *(["-X", method.upper()] if method not in ("get", "post") or not kinds else [])]
    words = [word for word in words if word not in ("-X", "GET")] if method == "get" else words
    if "application/json" in kinds:
        return f"{' '.join(words)} SERVER{path} -H 'Content-Type: application/json' -d '{{...}}'"
    return f"{' '.join(words)} SERVER{path}{' -F name=value' if kinds else ''}"
