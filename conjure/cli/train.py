"""`conjure train` and `conjure recipes`."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from conjure.cli import names
from conjure.cli.names import completing
from conjure.cli.render import note, out, paint, table

HELP = {"help_option_names": ["-h", "--help"]}
TRAIN = """\b
Examples:
  conjure train shakespeare-char
  conjure train shakespeare-char train.steps=100 train.lr=3e-4 -o runs/short
  conjure train shakespeare-char --check          audit the run before it costs anything
  conjure train shakespeare-char --resume         go on after Ctrl-C, kill -9 or a power cut
  torchrun --nproc-per-node 2 -m conjure train story

RECIPE is a name that `conjure recipes` lists, or a YAML file. a.b=c puts other values into it, by the same check."""


@click.command("train", epilog=TRAIN, context_settings=HELP)
@click.argument("recipe", metavar="RECIPE", shell_complete=completing(names.recipes))
@click.argument("assignments", nargs=-1, metavar="[A.B=C]...")
@click.option("-o", "--output", metavar="FOLDER", help="Where the run and the model go. [default: runs/RECIPE]")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in the folder.")
@click.option("--check", is_flag=True, help="Audit the recipe in under a minute, and train nothing.")
def train(recipe: str, assignments: tuple[str, ...], output: str | None, resume: bool, check: bool) -> None:
    """Train any network by a recipe, in the one loop."""
    if check:
        _audit(recipe, assignments)
        return
    from conjure.tasks import training

    figures = training.train(recipe, *assignments, folder=output, resume=resume)
    if os.environ.get("RANK", "0") == "0":  # under torchrun every process comes here
        out(json.dumps({"folder": str(output or training.default_folder(recipe)), **figures}))


@click.command(
    "recipes", epilog="\b\nExamples:\n  conjure recipes\n  conjure recipes shakespeare-char", context_settings=HELP
)
@click.argument("name", required=False, shell_complete=completing(names.recipes))
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def recipes(name: str | None, as_json: bool) -> None:
    """The recipes that come with conjure, with what they need and what came out.

    With NAME that one recipe, whole.
    """
    from conjure.train import recipe as book

    if name is not None:
        out(book.find(name).read_text(encoding="utf-8").rstrip())
        return
    found: dict[str, dict[str, Any]] = {name: book.header(path) for name, path in book.available().items()}
    if as_json:
        out(json.dumps(found, ensure_ascii=False))
        return
    for name, head in found.items():
        out(paint(name, "bold", sys.stdout))
        out(table(head.items(), indent="  ") or "  its file has no header")
    note("conjure recipes NAME shows one; conjure train NAME trains it")


def _audit(recipe: str, assignments: tuple[str, ...]) -> None:
    from conjure.core.errors import ConjureError
    from conjure.tasks.training import check

    findings = check(recipe, *assignments)
    for finding in findings:
        out(str(finding))
    failed = [finding.name for finding in findings if finding.passed is False]
    if failed:
        raise ConjureError(
            f"{len(failed)} of {sum(each.passed is not None for each in findings)} checks failed: {', '.join(failed)}",
            hint="a run like this would waste its time: the lines marked FAIL say why",
        )
