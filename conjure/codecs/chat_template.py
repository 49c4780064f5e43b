"""Chats as the one text that a model was trained to continue, by the template that comes with its tokenizer.

Where templates lie, first found first: `chat_template.jinja` with `additional_chat_templates/*.jinja`,
`chat_template.json`, `chat_template` in `tokenizer_config.json` (one text, or a list with names).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conjure.core.errors import ConjureError, suggest

if TYPE_CHECKING:
    from jinja2 import Template

FILE = "chat_template.jinja"
WORK = 2_000_000
"""Characters written and items visited that any chat may cost; on top come WORK_PER_CHARACTER for each of its own."""
WORK_PER_CHARACTER = 100
SECONDS = 20.0
LONGEST = 1_000_000
"""Characters of a template."""
BREAK = "\ufdd0"
"""Put into what reads like a special token in a message, to keep it text. Unicode says that it is never text itself."""
_NOT_TEXT = str.maketrans("", "", "\ufdd0\ufdd1\ufdd2")


class ChatTemplate:
    """`render(messages)`: `messages` are mappings with `role` and `content`, or whatever the template reads.

    Templates are programs from strangers: they run in a sandbox (`template_sandbox.py`), and one that fails, reaches
    for what is not its own, or does not end, is a `ConjureError` that names its line.
    """

    def __init__(self, templates: Mapping[str, str], tokens: Mapping[str, str] | None = None) -> None:
        """`templates` by name, of which "default" is the usual; `tokens` are names that templates know, such as
        `bos_token`."""
        self.templates, self.tokens = dict(templates), dict(tokens or {})
        self._compiled: dict[str, Template] = {}

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        name: str = "",
        **extra: Any,
    ) -> str:
        """The chat as text. With `add_generation_prompt` it ends where the model is to answer. `name` picks a template;
        else it is "tool_use" where there is one and `tools` are given, else "default". `extra` goes to the template."""
        return self.spans(messages, tools, documents, add_generation_prompt, name, **extra)[0]

    def spans(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        name: str = "",
        **extra: Any,
    ) -> tuple[str, list[tuple[int, int]]]:
        """As `render`, with the (start, end) of all that the template says was written by the model."""
        chosen = name or ("tool_use" if tools and "tool_use" in self.templates else "default")
        values: dict[str, Any] = {
            **self.tokens,
            "messages": messages, "tools": tools, "documents": documents,
            "add_generation_prompt": add_generation_prompt, **extra,
        }  # fmt: skip
        plain = {key: _plain(value, key) for key, value in values.items()}
        return _cut(self._render(chosen, plain))

    def _render(self, name: str, values: Mapping[str, Any]) -> str:
        from jinja2 import TemplateError

        from conjure.codecs.template_sandbox import metered

        template = self._template(name)
        size = len(json.dumps(values, ensure_ascii=False))
        try:
            with metered(WORK + WORK_PER_CHARACTER * size, SECONDS):
                return "".join(template.generate(values))
        except (
            TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError,
            MemoryError,
        ) as error:  # fmt: skip
            raise _failed(error) from None

    def _template(self, name: str) -> Template:
        from jinja2 import TemplateError

        from conjure.codecs.template_sandbox import compiled

        if name not in self.templates:
            raise ConjureError(f"there is no chat template '{name}'", hint=suggest(name, self.templates))
        if name not in self._compiled:
            source = self.templates[name]
            if len(source) > LONGEST:
                raise ConjureError(f"the chat template has {len(source)} characters, {LONGEST} at most are read")
            try:
                self._compiled[name] = compiled(source)
            except (TemplateError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
                raise _failed(error) from None
        return self._compiled[name]


def find(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The templates of a model folder by name; `config` is its `tokenizer_config.json`. Empty where there are none."""
    files = {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if (folder / FILE).is_file():
        files["default"] = folder / FILE
    if files:
        return {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    given: object = config.get("chat_template")
    legacy = folder / "chat_template.json"
    if legacy.is_file():
        try:
            content = json.loads(legacy.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConjureError(f"{legacy} is not JSON: {error}", hint="fetch the model again") from None
        given = content.get("chat_template") if isinstance(content, dict) else content
    if isinstance(given, str):
        return {"default": given}
    if isinstance(given, list):
        pairs = [(each.get("name"), each.get("template")) for each in given if isinstance(each, dict)]
        return {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}
    if isinstance(given, dict):
        return {str(name): text for name, text in given.items() if isinstance(text, str)}
    return {}


def _plain(value: Any, what: str) -> Any:
    """A copy in plain types, so that a template cannot reach methods of anything else."""
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, str):
        return str(value).translate(_NOT_TEXT) if any(each in value for each in "\ufdd1\ufdd2") else str(value)
    if isinstance(value, Mapping):
        return {_plain(key, what): _plain(each, what) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each, what) for each in value]
    raise ConjureError(
        f"{what}: expected text, numbers, lists and mappings, got {type(value).__name__}",
        hint="a template sees plain values only",
    )


def _cut(rendered: str) -> tuple[str, list[tuple[int, int]]]:
    """Text without the marks around what the model wrote, and where that was."""
    from conjure.codecs.template_sandbox import SPAN_END, SPAN_START

    parts, spans, at = [], [], 0
    for index, part in enumerate(rendered.split(SPAN_START)):
        inside, mark, after = part.partition(SPAN_END) if index else ("", "", part)
        if mark or inside:
            spans.append((at, at + len(inside)))
        parts.append(inside + after)
        at += len(inside) + len(after)
    return "".join(parts), spans


def _failed(error: BaseException) -> ConjureError:
    """What went wrong, with the line of the template where it did."""
    line, trace = getattr(error, "lineno", None), error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    where = f"line {line} of the chat template" if line else "the chat template"
    ours = type(error).__module__.startswith(("jinja2", "conjure"))
    said = str(error) if ours else f"{type(error).__name__}: {error}"
    if isinstance(error, RecursionError):
        said = "it calls itself without end"
    return ConjureError(f"{where}: {said}", hint="the template came with the model; see what it expects of a chat")
