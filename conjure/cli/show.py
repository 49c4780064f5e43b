"""`conjure show` and `conjure remake`: how a file was made, and the same file again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from conjure.cli.render import Follower, note, out, table

if TYPE_CHECKING:
    from conjure.core.provenance import Record

HELP = {"help_option_names": ["-h", "--help"]}
SHOW = """\b
Examples:
  conjure show apple.png
  conjure show apple.png --json
  conjure show story.md"""
REMAKE = """\b
Examples:
  conjure remake apple.png -o again.png && cmp apple.png again.png
  conjure remake better.png -o again.png --input photo.png

The same bytes come out on the same machine. Other weights under the model's name are refused."""


@click.command("show", epilog=SHOW, context_settings=HELP)
@click.argument("file", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="The record as it stands in the file.")
def show(file: str, as_json: bool) -> None:
    """How a file was made: task, model, inputs, options, seed."""
    from conjure.tasks.remake import provenance

    its = provenance(file)
    out(its.to_json() if as_json else described(its))


@click.command("remake", epilog=REMAKE, context_settings=HELP)
@click.argument("file", metavar="FILE")
@click.option("-o", "--output", required=True, metavar="AGAIN", help="Where to write the file again.")
@click.option("--input", "files", multiple=True, metavar="FILE", help="A file it was made from, if it has moved.")
@click.option("-y/-n", "--yes/--no", "overwrite", default=None, help="Overwrite AGAIN, or never. Default: ask.")
def remake(file: str, output: str, files: tuple[str, ...], overwrite: bool | None) -> None:
    """Make a file again from the record it carries, byte for byte."""
    from conjure import media
    from conjure.cli.make import may_write
    from conjure.core.errors import ConjureError
    from conjure.core.provenance import digest_file
    from conjure.media.kinds import kind_of
    from conjure.tasks.remake import provenance
    from conjure.tasks.remake import remake as again

    provenance(file)
    if kind_of(output) != kind_of(file):
        raise ConjureError(f"{output}: expected a name for {kind_of(file)}, like {file}, got one for {kind_of(output)}")
    may_write(Path(output), overwrite)
    before = digest_file(file)
    with Follower() as follow:
        medium = again(file, files=files, on_event=follow)
    media.write(medium, output, medium.record)
    if Path(file).suffix.lower() != Path(output).suffix.lower():
        note(f"wrote {output}, in another format than {file}")
    elif digest_file(output) == before:
        note(f"wrote {output}: {file}, byte for byte")
    else:
        note(f"wrote {output}, which differs from {file}: it was made on another machine, or changed since")


def described(its: Record) -> str:
    rows = [("made by", f"conjure {its.version}"), ("task", its.task), ("model", its.model), ("weights", its.weights)]
    for each in its.inputs:
        kind = each.get("kind", "input")
        said = each.get("text") or f"{each.get('name') or 'unnamed'} ({each.get('digest', '')})"
        rows.append((kind, said if len(said) <= 300 else f"{said[:300]} ... ({len(said):,} characters)"))
    rows += [(f"  {name}", _value(value)) for name, value in its.options.items()]
    if its.seeds:
        rows.append(("seed", str(its.seed)))
    if len(its.seeds) > 1:
        rows.append(("sample", f"{its.index + 1} of {len(its.seeds)}, seeds {its.seeds[0]} to {its.seeds[-1]}"))
    rows.append(("source", its.source_type))
    return table([name, value.replace("\n", "\n" + " " * 11)] for name, value in rows)


def _value(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
