"""The second round of `conjure make`: which tokens are inputs, which edge they mean, and its options as flags."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from conjure.core.errors import ConjureError
from conjure.tasks.table import resolve

if TYPE_CHECKING:
    from conjure.tasks.inputs import Given
    from conjure.tasks.options import Knob
    from conjure.tasks.table import Edge

MAX_STDIN = 1 << 30
STDIN = "-"


@dataclass(frozen=True)
class Asked:
    """The inputs, the way they mean, and the tokens that are not yet read as its options."""

    inputs: tuple[Given, ...]
    edges: tuple[Edge, ...]
    tokens: tuple[str, ...]

    def options(self) -> dict[str, Any]:
        """The options among the tokens, by name; of a file its name. Imports the task."""
        return _attached(self.inputs, self.edges[-1], self.tokens)[1]


def asked(
    tokens: Sequence[str], literal: Sequence[str], *, heard: Given | None = None, **wish: str | None
) -> Asked:
    """What the command line asks for. `tokens` are inputs and flags of an edge not yet known, `literal` only inputs;
    `heard` is what - stands for, where that is not all of stdin.

    Only the edge knows which of its flags take a value. So each is taken to have one at first; the edge found that way
    reads the tokens again, and where none is found every edge gets to read them.
    """
    from conjure.tasks.table import everything

    seen: dict[str, Given] = {} if heard is None else {STDIN: heard}
    words, flags = [*_inputs(tokens), *literal], _flags(tokens)
    try:
        found = _given(words, seen, wish, flags)
        if len(words) == len(tokens) + len(literal):
            return Asked(*found, ())
        readers: Sequence[Edge] = found[1][-1:]
    except ConjureError:
        if len(words) == len(tokens) + len(literal):
            raise
        readers = everything()
    for edge in readers:
        try:
            words = [*read_options(edge, tokens)[0], *literal]
            found = _given(words, seen, wish, flags)
        except ConjureError:
            if len(readers) == 1:
                raise
            continue
        if found[1][-1] == edge:
            return Asked(_attached(found[0], edge, tokens)[0], found[1], tuple(tokens))
    _given([*_inputs(tokens), *literal], seen, wish, flags)  # says what is wrong with the most likely reading
    raise ConjureError("the inputs and the options do not fit together", hint="put the inputs first, the options last")


def _given(
    words: Sequence[str], seen: dict[str, Given], wish: dict[str, str | None], flags: Collection[str]
) -> tuple[tuple[Given, ...], tuple[Edge, ...]]:
    from conjure.tasks.inputs import instructed
    from conjure.tasks.make import way

    given = tuple(_understood(word, seen) for word in words)
    names = [each.name for each in given]
    return given, way([each.kind for each in given], **wish, hint=instructed(given, flags), names=names)


def _attached(given: tuple[Given, ...], edge: Edge, tokens: Sequence[str]) -> tuple[tuple[Given, ...], dict[str, Any]]:
    from conjure.tasks.inputs import attached

    return attached(resolve(edge).Options, read_options(edge, tokens)[1], given)


def read_options(edge: Edge, tokens: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """(inputs, options that were given) among the tokens, by the flags of this edge."""
    from conjure.tasks.options import knobs, unknown

    options = resolve(edge).Options
    command = click.Command(
        edge.task, params=[click.Argument(["inputs"], nargs=-1), *map(_flag, knobs(options))], add_help_option=False
    )
    try:
        found = command.make_context(f"conjure make ({edge.task})", list(tokens)).params
    except click.NoSuchOption as error:
        name = error.option_name.partition("=")[0]
        if not name.startswith("--"):
            hint = "conjure make --help; a text that begins with - goes after --"
            raise ConjureError(f"no option {name}", hint=hint) from None
        raise unknown(name.removeprefix("--").replace("-", "_"), edge, options) from None
    inputs = list(found.pop("inputs"))
    return inputs, {name: value for name, value in found.items() if value is not None and value != ()}


def explained(tokens: Sequence[str], literal: Sequence[str], **wish: Any) -> str:
    """The options of the edge, with types, ranges and defaults."""
    from conjure.tasks.make import way
    from conjure.tasks.options import knobs

    words = [*_inputs(tokens), *literal]
    seen: dict[str, Given] = {}
    edge = _given(words, seen, wish, _flags(tokens))[1][-1] if words else way(["text"], **wish)[-1]
    formatter = click.HelpFormatter(max_width=100)
    usual = f"Default model {edge.model}." if edge.model else "It takes a model: --model."
    usual = "No model takes part." if edge.by_rule else usual
    formatter.write_text(f"{edge.task}: {edge}, {edge.summary}. {usual}")
    rows = [(_usage(knob), f"{knob.doc}; {_range(knob)}") for knob in knobs(resolve(edge).Options)]
    if rows:
        with formatter.section(f"Options of {edge.task}"):
            formatter.write_dl(rows)
    else:
        formatter.write_text(f"{edge.task} has no options of its own.")
    formatter.write_paragraph()
    formatter.write_text("`conjure make --help` shows the flags that every edge has.")
    return formatter.getvalue().rstrip()


def _usage(knob: Knob) -> str:
    return knob.flag if knob.type is bool else f"{knob.flag} {_placeholder(knob)}"


def _placeholder(knob: Knob) -> str:
    return {int: "N", float: "X"}.get(knob.type, "TEXT" if knob.type is str or knob.many else "NAME")


def _range(knob: Knob) -> str:
    again = ", may be given again" if knob.many else ""
    return f"{knob.expects}{again} [default: {knob.default_text}]"


def _flag(knob: Knob) -> click.Option:
    if knob.type is bool:
        names = f"{knob.flag}/--no-{knob.flag.removeprefix('--')}"
        return click.Option([names, knob.name], default=None)
    return click.Option([knob.flag, knob.name], multiple=knob.many, default=None, type=click.UNPROCESSED)


def _inputs(tokens: Sequence[str]) -> list[str]:
    """The tokens that are inputs if every flag without `=` takes the token after it."""
    found: list[str] = []
    value_next = False
    for token in tokens:
        is_flag = len(token) > 1 and token.startswith("-") and not value_next
        if not is_flag and not value_next:
            found.append(token)
        value_next = is_flag and "=" not in token
    return found


def _flags(tokens: Sequence[str]) -> frozenset[str]:
    """The names of the options among the tokens, as Options have them."""
    names = (token[2:].partition("=")[0] for token in tokens if token.startswith("--"))
    return frozenset(name.replace("-", "_") for name in names)


def _understood(word: str, seen: dict[str, Given]) -> Given:
    """An input; read once, for stdin can be read only once."""
    from conjure.tasks.inputs import understand

    if word not in seen:
        seen[word] = understand(_stdin() if word == STDIN else word)
    return seen[word]


def _stdin() -> bytes:
    if sys.stdin.isatty():
        sys.stderr.write("reading from the terminal, Ctrl-D ends\n")
    from conjure.media.bounds import TEXT_BYTES, bound, over
    from conjure.media.kinds import sniff

    head = sys.stdin.buffer.read(16)
    text = sniff(head) == "text"
    limit = bound(TEXT_BYTES) if text else MAX_STDIN
    data = head + sys.stdin.buffer.read(max(0, limit + 1 - len(head)))
    if len(data) <= limit:
        return data
    if text:
        raise over("stdin", "more", TEXT_BYTES, "bytes of text")
    raise ConjureError(f"stdin: expected at most {MAX_STDIN >> 20} MiB")
