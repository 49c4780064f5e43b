"""`conjure make`: inputs in, a file or a stream out.

Arguments are read in two rounds. The first takes the flags that every edge has and leaves the rest; the inputs among
the rest tell the edge; the second reads the rest by that edge's own Options.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conjure.cli import names
from conjure.cli.arguments import STDIN, Asked, asked
from conjure.cli.names import completing
from conjure.cli.render import Follower, note, out
from conjure.core.errors import ConjureError

if TYPE_CHECKING:
    from conjure.core.provenance import Record
    from conjure.tasks.inputs import Given
    from conjure.tasks.make import Plan

EPILOG = """\b
Examples:
  conjure make "a red apple" -o apple.png
  conjure make "a red apple" -o apple.png --count 4 --seed 7
  conjure make "Once upon a time" --tokens 200 -o story.md
  echo "a blue fish" | conjure make - --to png -o - > fish.png
  conjure make "a red apple" -o apple.png --plan
  conjure make talk.mp3 -o talk.srt
  arecord -f S16_LE -r 16000 | conjure make - --live
  conjure make -h "a red apple" -o apple.png     (the options of that very edge)

An argument that names an existing file is that file, - is stdin, text:photo.png is the text photo.png, anything else is
text. What comes out follows from the suffix of -o, or from --to; a text without -o is written to stdout as it comes.
Sample k of --count has the seed plus k. After -- everything is input."""


@dataclass(frozen=True)
class Flags:
    """What every edge understands."""

    output: str | None
    to: str | None
    model: str | None
    task: str | None
    seed: int | None
    count: int
    grid: bool
    overwrite: bool | None
    as_json: bool
    plan: bool
    live: bool
    provenance: bool
    history: bool


class TwoRounds(click.Command):
    """A command whose parser leaves what it does not know, and everything behind `--`, to the second round."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        cut = args.index("--") if "--" in args else len(args)
        ctx.meta["conjure.literal"] = tuple(args[cut + 1 :])
        return super().parse_args(ctx, args[:cut])


@click.command(
    "make", cls=TwoRounds, epilog=EPILOG, add_help_option=False, context_settings={"ignore_unknown_options": True}
)
@click.argument("inputs", nargs=-1, type=click.UNPROCESSED, metavar="INPUT...")
@click.option("-o", "--output", metavar="FILE", help="Where to write; its suffix decides the kind. - is stdout.")
@click.option(
    "--to",
    metavar="KIND",
    shell_complete=completing(names.kinds),
    help="The kind (image) or format (png) to make, where -o does not tell.",
)
@click.option(
    "--model",
    metavar="NAME",
    shell_complete=completing(names.models),
    help="starter/NAME, a folder, or org/name; `conjure list models`.",
)
@click.option(
    "--task",
    metavar="NAME",
    shell_complete=completing(names.tasks),
    help="Which task, where several lead there; `conjure list`.",
)
@click.option("--seed", type=int, metavar="N", help="The same seed gives the same result. Default: drawn at random.")
@click.option("--count", type=int, default=1, metavar="N", help="How many: NAME-1.png, NAME-2.png, ... [default: 1]")
@click.option("--grid", is_flag=True, help="All of --count on one picture.")
@click.option(
    "-y/-n", "--yes/--no", "overwrite", default=None, help="Overwrite existing files, or never. Default: ask."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout about what was made.")
@click.option("--plan", "plan", is_flag=True, help="Show edge, model, memory and time, and make nothing.")
@click.option("--live", is_flag=True,
              help="Sound as it is heard: WAV that comes on stdin with -, else the microphone. Ctrl-C ends it.")
@click.option("--no-provenance", "provenance", is_flag=True, flag_value=False, default=True,
              help="Do not write into the file how it was made.")  # fmt: skip
@click.option("--no-history", "history", is_flag=True, flag_value=False, default=True,
              help="Do not keep the result in the history (`conjure history`).")  # fmt: skip
@click.option("-h", "--help", "wants_help", is_flag=True, help="This, or with inputs the options of their edge.")
@click.pass_context
def make(ctx: click.Context, inputs: tuple[str, ...], wants_help: bool, **flags: Any) -> None:
    """Make a medium from others: a picture from words, a story from its start.

    Every edge has options of its own; -h together with inputs shows them.
    """
    chosen, literal = Flags(**flags), ctx.meta["conjure.literal"]
    if wants_help and not (inputs or literal or chosen.output or chosen.to or chosen.task):
        click.echo(ctx.get_help())
        return
    if wants_help:
        from conjure.cli.arguments import explained

        click.echo(explained(inputs, literal, to=chosen.to, output=chosen.output, task=chosen.task, model=chosen.model))
        return
    began = time.perf_counter()
    heard = _heard(inputs) if chosen.live else None
    if heard is not None and STDIN not in inputs:
        inputs = (STDIN, *inputs)
    wish = asked(inputs, literal, to=chosen.to, output=chosen.output, task=chosen.task, model=chosen.model,
                 heard=heard)  # fmt: skip
    targets = _targets(wish, chosen)
    planned = _planned(wish, chosen)
    if chosen.plan:
        from conjure.cli.plan import show_plan

        writes = ", ".join(map(str, targets)) or _writes(planned, chosen)
        show_plan(planned, seeded=chosen.seed is not None, writes=writes, as_json=chosen.as_json)
    else:
        _make(planned, chosen, targets, began)


def _planned(wish: Asked, chosen: Flags) -> Plan:
    from conjure.tasks.make import plan

    return plan(
        *wish.inputs, to=chosen.to or wish.edges[-1].output, output=None if chosen.output == "-" else chosen.output,
        model=chosen.model, task=chosen.task or wish.edges[-1].task, seed=chosen.seed, count=chosen.count,
        **wish.options(),
    )  # fmt: skip


def _make(planned: Plan, chosen: Flags, targets: list[Path], began: float) -> None:
    from conjure.tasks.make import finished, record, run

    as_document = (chosen.to or "").lower().removeprefix(".") == "json"
    streamed = planned.output == "text" and not targets and not chosen.as_json and not as_document
    stream = _Stream() if streamed and len(planned.seeds) == 1 else None
    with Follower(text=stream, live=chosen.live) as follow, _until_interrupted(planned if chosen.live else None):
        result = finished(run(planned), follow)
    media = list(result.media)
    records = [record(planned, index) if chosen.provenance else None for index in range(len(media))]
    if chosen.grid:
        media, records = _gridded(media, records)
    if stream is not None:
        stream.close(str(media[0]))
    elif streamed:
        out("\n\n".join(str(medium) for medium in media))
    elif chosen.output == "-" or (as_document and not targets and not chosen.as_json):
        suffix = f".{(chosen.to or '').lower().removeprefix('.')}"
        _to_stdout(_filed(planned, media[0], dict(result.facts), 0, suffix), records[0], chosen)
    facts = dict(result.facts)
    filed = [_filed(planned, each, facts, n, path.suffix) for n, (each, path) in enumerate(zip(media, targets))]
    written = _written(filed, records, targets)
    seconds = time.perf_counter() - began
    if chosen.history:
        from conjure.cli.history import keep

        gridded = chosen.grid and len(planned.seeds) > 1
        keep(planned, filed or media, targets, seconds, gridded=gridded)
    if chosen.as_json:
        _print_json(planned, media, written, dict(result.facts), seconds)
    else:
        _tell(planned, written, chosen)


def _heard(inputs: Sequence[str]) -> Given:
    """Live sound: from stdin where - is among the inputs, else from the microphone."""
    from conjure.media.recording import from_microphone, from_pipe
    from conjure.tasks.inputs import Given

    if STDIN in inputs:
        if sys.stdin.isatty():
            raise ConjureError("--live with -: expected sound on stdin", hint="arecord -f S16_LE -r 16000 | conjure "
                               "make - --live; without - the microphone is used")  # fmt: skip
        return Given(from_pipe(sys.stdin.buffer), "stdin")
    live = from_microphone()
    note("listening; Ctrl-C ends it")
    return Given(live, "microphone")


@contextmanager
def _until_interrupted(planned: Plan | None) -> Iterator[None]:
    """Within it, the first Ctrl-C ends live sound, and what was heard is written down; a second one ends it all."""
    if planned is None:
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(*_: Any) -> None:
        signal.signal(signal.SIGINT, before)
        for each in planned.inputs:
            if (ending := getattr(each.medium, "stop", None)) is not None:
                ending()

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# -- where it goes ----------------------------------------------------------------------------------------------------


def _targets(wish: Asked, chosen: Flags) -> list[Path]:
    """The files to write, after every check that can be made before the work: nothing is computed in vain."""
    from conjure.media.kinds import kind_of, writable
    from conjure.tasks.make import numbered

    kind = wish.edges[-1].output
    several = chosen.count > 1 and not chosen.grid
    if chosen.grid and kind != "image":
        raise ConjureError(f"--grid: expected pictures, this makes {kind}", hint="leave it out")
    if chosen.output is None:
        if kind != "text" and not chosen.plan:
            raise ConjureError(
                f"where should the {kind} go?", hint=f"name a file: -o NAME{writable(kind)[0]}, or -o - for stdout"
            )
        return []
    if chosen.output == "-":
        _check_stdout(kind, several, chosen)
        return []
    if kind_of(chosen.output) != kind:
        raise ConjureError(
            f"{chosen.output}: that suffix is for {kind_of(chosen.output)}, but --to {chosen.to} makes {kind}",
            hint=f"name it NAME{writable(kind)[0]}, or leave --to out",
        )
    suffix = Path(chosen.output).suffix.lower()
    if suffix not in writable(kind):
        raise ConjureError(
            f"{chosen.output}: {kind} cannot be written as {suffix}", hint=f"choose one of {' '.join(writable(kind))}"
        )
    paths = numbered(chosen.output, chosen.count if several else 1)
    if not chosen.plan:
        for path in paths:
            may_write(path, chosen.overwrite)
    return paths


def may_write(path: Path, overwrite: bool | None) -> None:
    """Refuses early what would fail late: a missing or closed folder, a file that is there and may not be replaced."""
    if not path.parent.is_dir():
        raise ConjureError(f"{path}: the folder {path.parent} does not exist", hint=f"mkdir -p {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ConjureError(f"{path}: you may not write in {path.parent}", hint="choose another folder")
    if path.is_dir():
        raise ConjureError(f"{path}: expected a file, this is a folder", hint="add a file name")
    if not path.exists() or overwrite or not path.is_file():
        return
    if overwrite is None and sys.stdin.isatty() and sys.stderr.isatty():
        if click.confirm(f"{path} exists. Overwrite it?", err=True):
            return
        raise ConjureError(f"{path}: left as it is", hint="choose another name")
    raise ConjureError(f"{path}: exists already", hint="-y overwrites it; or choose another name")


def _check_stdout(kind: str, several: bool, chosen: Flags) -> None:
    if chosen.as_json:
        raise ConjureError("--json and -o - both write to stdout", hint="write the result into a file: -o NAME")
    if kind == "text":
        return
    if several:
        raise ConjureError(
            f"only one {kind} fits into stdout, --count is {chosen.count}", hint="add --grid, or -o NAME"
        )
    if sys.stdout.isatty() and not chosen.plan:
        raise ConjureError(f"not writing {kind} bytes to a terminal", hint="pipe them: ... -o - | other, or -o NAME")


def _to_stdout(medium: Any, its: Record | None, chosen: Flags) -> None:
    from conjure import media
    from conjure.media.kinds import SUFFIXES, writable

    suffix = f".{(chosen.to or '').lower().removeprefix('.')}"
    sys.stdout.buffer.write(media.encode(medium, suffix if suffix in SUFFIXES else writable(medium.kind)[0], its))
    sys.stdout.buffer.flush()


def _filed(planned: Plan, medium: Any, facts: dict[str, Any], index: int, suffix: str) -> Any:
    from conjure.tasks.make import filed

    return filed(planned, medium, facts, index, suffix)


def _written(media: Sequence[Any], records: Sequence[Record | None], targets: Sequence[Path]) -> list[Path]:
    from conjure.media import write

    return [write(medium, path, its) for medium, its, path in zip(media, records, targets, strict=False)]


def _gridded(media: list[Any], records: list[Record | None]) -> tuple[list[Any], list[Record | None]]:
    from conjure.media.image import grid
    from conjure.tasks.remake import GRID

    first = records[0]
    return [grid(media)], [first and replace(first, options=dict(first.options) | {GRID: True})]


class _Stream:
    """A text on stdout as it is written, with one line end after it."""

    def __init__(self) -> None:
        self.seen = ""

    def write(self, text: str) -> None:
        self.seen += text
        sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()

    def isatty(self) -> bool:
        return sys.stdout.isatty()

    def close(self, whole: str) -> None:
        if whole.startswith(self.seen):  # what came too late for a piece of its own
            self.write(whole[len(self.seen) :])
        if not self.seen.endswith("\n"):
            sys.stdout.write("\n")
        self.flush()


# -- what is said about it --------------------------------------------------------------------------------------------


def _tell(planned: Plan, written: Sequence[Path], chosen: Flags) -> None:
    first, last = planned.seeds[0], planned.seeds[-1]
    seeds = f"seed {first}" if first == last else f"seeds {first} to {last}"
    if written:
        names = f"{written[0]}" if len(written) == 1 else f"{written[0]} to {written[-1].name}"
        note(f"wrote {names} ({planned.models[-1] or planned.edges[-1].task}, {seeds})")
    elif chosen.seed is None and sys.stderr.isatty():
        note(f"{planned.models[-1] or planned.edges[-1].task}, {seeds}")


def _print_json(
    planned: Plan, media: Sequence[Any], written: Sequence[Path], facts: dict[str, Any], seconds: float
) -> None:
    from conjure.core.provenance import digest_file
    from conjure.tasks.make import weights

    edge = planned.edges[-1]
    said: dict[str, Any] = {
        "files": [str(path) for path in written],
        "digests": [digest_file(path) for path in written],
        "seeds": list(planned.seeds),
        "task": edge.task,
        "from": list(planned.edges[0].inputs),
        "to": edge.output,
        "model": planned.models[-1],
        "digest": weights(planned.models[-1]),
        "options": asdict(planned.options),
        "facts": facts,
        "seconds": round(seconds, 3),
    }
    if planned.output == "text":
        said["texts"] = [str(medium) for medium in media]
    out(json.dumps(said, ensure_ascii=False))


def _writes(planned: Plan, chosen: Flags) -> str:
    return "stdout" if planned.output == "text" or chosen.output else "nothing: add -o NAME"
