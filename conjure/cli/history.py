"""`conjure history`: what was made, searched, shown, made again, deleted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conjure.cli import names
from conjure.cli.names import completing
from conjure.cli.render import note, out, table
from conjure.core.errors import ConjureError
from conjure.core.files import size

if TYPE_CHECKING:
    from conjure.core.history import Entry, History
    from conjure.tasks.make import Plan

HELP = {"help_option_names": ["-h", "--help"]}
EPILOG = """\b
Examples:
  conjure history
  conjure history red apple
  conjure history --kind image --limit 50
  conjure history show last
  conjure history remake 12 -o again.png
  conjure history export 12 14 -o kept/
  conjure history delete 12 14
  conjure history delete --all

A word finds its beginnings too: app finds apple. CONJURE_HISTORY names the folder where the history lies,
CONJURE_HISTORY=off keeps none, `make --no-history` leaves one result out."""
LAST = "last"


class Searching(click.Group):
    """What is no command is a word to search for."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        helping = any(arg in ("-h", "--help") for arg in args)
        if not helping and (not args or args[0] not in self.commands):
            args = ["search", *args]
        return super().parse_args(ctx, args)


@click.group("history", cls=Searching, epilog=EPILOG, context_settings=HELP)
def history() -> None:
    """What was made: search it, show it, make it again, delete it."""


as_json = click.option("--json", "as_json", is_flag=True, help="The same as JSON.")


@history.command("search", epilog="\b\nExample:\n  conjure history search red --kind image", context_settings=HELP)
@click.argument("words", nargs=-1)
@click.option("--kind", default="", shell_complete=completing(names.kinds), help="Only this kind: image, text.")
@click.option("--model", default="", shell_complete=completing(names.models), help="Only what this model made.")
@click.option("--limit", default=20, show_default=True, help="How many, the latest first.")
@as_json
def search(words: tuple[str, ...], kind: str, model: str, limit: int, as_json: bool) -> None:
    """The latest results, those with all WORDS where some are given."""
    with opened() as kept:
        found = kept.search(" ".join(words), kind=kind, model=model, limit=limit)
        if as_json:
            out(json.dumps([_plain(kept, each) for each in found]))
            return
    if not found:
        note("nothing like that has been made" if words or kind or model else "nothing has been made yet")
        return
    rows = [["number", "made", "kind", "from", "model", "file"]]
    out(table(rows + [
        [str(each.id), _local(each.made), each.kind, _short(each.prompt or each.task), each.model or each.task,
         Path(each.path).name or "-"] for each in found
    ]))  # fmt: skip


@history.command("show", epilog="\b\nExample:\n  conjure history show last", context_settings=HELP)
@click.argument("number", metavar="NUMBER")
@as_json
def show(number: str, as_json: bool) -> None:
    """One result: how it was made, where its bytes lie, whether it can be made again. NUMBER may be `last`."""
    from conjure.cli.show import described
    from conjure.tasks.keeping import obstacle

    with opened() as kept:
        entry = _entry(kept, number)
        if as_json:
            out(json.dumps(_plain(kept, entry)))
            return
        why = obstacle(kept, entry)
        rows = [
            ("number", str(entry.id)), ("made", _local(entry.made)), ("written as", entry.path or "nothing"),
            ("kept as", str(kept.file(entry))), ("size", size(entry.bytes)),
            ("took", f"{entry.seconds:.2f} s" if entry.seconds is not None else "?"),
            ("can be remade", f"no: {why}" if why else f"yes: conjure history remake {entry.id} -o NAME{entry.suffix}"),
        ]  # fmt: skip
        out(table(rows))
        out(described(entry.record))


@history.command("remake", epilog="\b\nExample:\n  conjure history remake 12 -o again.png", context_settings=HELP)
@click.argument("number", metavar="NUMBER")
@click.option("-o", "--output", required=True, metavar="AGAIN", help="Where to write it.")
@click.option("-y/-n", "--yes/--no", "overwrite", default=None, help="Overwrite AGAIN, or never. Default: ask.")
def remake(number: str, output: str, overwrite: bool | None) -> None:
    """Make a result again, from the inputs that the history kept."""
    from conjure import media
    from conjure.cli.make import may_write
    from conjure.cli.render import Follower
    from conjure.media.kinds import kind_of
    from conjure.tasks.remake import remake as again

    with opened() as kept:
        entry = _entry(kept, number)
        if kind_of(output) != entry.kind:
            raise ConjureError(f"{output}: expected a name for {entry.kind}, got one for {kind_of(output)}",
                               hint=f"NAME{entry.suffix}")
        may_write(Path(output), overwrite)
        with Follower() as follow:
            medium = again(entry.record, files=kept.sources(entry.id), on_event=follow)
        media.write(medium, output, medium.record)
        same = Path(output).read_bytes() == kept.file(entry).read_bytes()
    note(f"wrote {output}" + (f": number {entry.id}, byte for byte" if same else ""))


@history.command("open", epilog="\b\nExample:\n  conjure history open last", context_settings=HELP)
@click.argument("number", metavar="NUMBER")
def open_(number: str) -> None:
    """Open a result in the program that the desktop has for it."""
    with opened() as kept:
        path = kept.file(_entry(kept, number))
    if not path.is_file():
        raise ConjureError(f"the bytes of result {number} are gone", hint=f"conjure history remake {number} -o FILE")
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    if shutil.which(opener) is None:
        raise ConjureError(f"there is no {opener} here to open it with", hint=f"it lies at {path}")
    subprocess.run([opener, str(path)], check=False)


@history.command("export", epilog="\b\nExample:\n  conjure history export 12 14 -o kept/", context_settings=HELP)
@click.argument("numbers", metavar="NUMBER...", nargs=-1, required=True)
@click.option("-o", "--output", required=True, metavar="FOLDER", help="Where to; it is made where it is missing.")
@click.option("-y/-n", "--yes/--no", "overwrite", default=None, help="Overwrite files there, or never. Default: ask.")
def export(numbers: tuple[str, ...], output: str, overwrite: bool | None) -> None:
    """Copy results into a folder, as NUMBER-NAME."""
    from conjure.cli.make import may_write
    from conjure.core.files import write_atomic

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with opened() as kept:
        entries = [_entry(kept, number) for number in numbers]
        targets = [folder / f"{each.id}-{Path(each.path).stem or each.task}{each.suffix}" for each in entries]
        for target in targets:
            may_write(target, overwrite)
        for entry, target in zip(entries, targets, strict=True):
            write_atomic(target, kept.file(entry).read_bytes())
    note(f"wrote {len(targets)} files into {folder}")


@history.command("delete", epilog="\b\nExample:\n  conjure history delete 12 14 -y", context_settings=HELP)
@click.argument("numbers", metavar="NUMBER...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All there is.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(numbers: tuple[str, ...], everything: bool, yes: bool) -> None:
    """Forget results: their bytes, their words, and the inputs nothing else was made from."""
    if bool(numbers) == everything:
        raise ConjureError("delete what?", hint="conjure history delete NUMBER..., or --all")
    with opened() as kept:
        found = kept.search(limit=-1) if everything else [_entry(kept, number) for number in numbers]
        if not found:
            note("the history is empty")
            return
        if not yes:
            if not (sys.stdin.isatty() and sys.stderr.isatty()):
                raise ConjureError(f"{len(found)} results would be gone for good", hint="-y deletes them")
            click.confirm(f"Delete {len(found)} results for good?", abort=True, err=True)
        gone = kept.delete([each.id for each in found])
    note(f"deleted {gone}; files written elsewhere stay where they are")


def keep(planned: Plan, made: Sequence[Any], paths: Sequence[Path], seconds: float, *, gridded: bool) -> None:
    """What `make` made into the history; what stands in the way of that is said and spoils nothing."""
    from conjure.core import paths as places

    folder = places.history_dir()
    if folder is None:
        return
    from conjure.core.history import History
    from conjure.tasks.keeping import keep as kept

    try:
        with History(folder) as history:
            kept(history, planned, made, paths, seconds, gridded=gridded)
    except ConjureError as error:
        note(f"not kept in the history: {error.message}")


def opened() -> History:
    """The history of this user; `ConjureError` where it is switched off."""
    from conjure.core import paths
    from conjure.core.history import History

    folder = paths.history_dir()
    if folder is None:
        raise ConjureError("the history is switched off", hint="unset CONJURE_HISTORY")
    return History(folder)


def _entry(kept: History, number: str) -> Entry:
    if number == LAST:
        latest = kept.search(limit=1)
        if not latest:
            raise ConjureError("nothing has been made yet", hint='conjure make "a red apple" -o apple.png')
        return latest[0]
    if not number.isdecimal():
        raise ConjureError(f"expected the number of a result, or {LAST}, got '{number}'",
                           hint="`conjure history` lists them")
    return kept.get(int(number))


def _plain(kept: History, entry: Entry) -> dict[str, Any]:
    from conjure.tasks.keeping import obstacle

    facts = {name: getattr(entry, name) for name in entry.__dataclass_fields__ if name != "record"}
    return facts | {
        "file": str(kept.file(entry)), "record": json.loads(entry.record.to_json()),
        "obstacle": obstacle(kept, entry),
    }  # fmt: skip


def _local(made: str) -> str:
    return datetime.fromisoformat(made).astimezone().strftime("%Y-%m-%d %H:%M")


def _short(text: str, most: int = 48) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."
