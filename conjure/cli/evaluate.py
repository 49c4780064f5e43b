"""`conjure eval`: a model's published numbers, measured again."""

from __future__ import annotations

import json
from typing import Any

import click

from conjure.cli import names
from conjure.cli.names import completing
from conjure.cli.render import Follower, out, table

EPILOG = """\b
Examples:
  conjure eval starter/story
  conjure eval starter/story --data wikitext2
  conjure eval starter/story --data my-book.txt
  conjure eval starter/pictograms --json"""


@click.command("eval", epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", metavar="MODEL", shell_complete=completing(names.models))
@click.option(
    "--data", "sets", multiple=True, metavar="NAME-or-FILE", help="Measure on these instead of the model's own."
)
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def evaluate(model: str, sets: tuple[str, ...], as_json: bool) -> None:
    """Measure a model's published numbers again, with 95 % confidence intervals."""
    from conjure.tasks.training import evaluate as measured

    with Follower() as follow:
        figures = measured(model, sets, follow)
    if as_json:
        out(json.dumps({"model": model, "data": list(sets), "figures": figures}))
        return
    out(table([["figure", "value", "95 % interval", "n", "protocol"], *map(_row, figures.items())]))


def _row(figure: tuple[str, Any]) -> list[str]:
    name, facts = figure
    low, high = facts.get("low"), facts.get("high")
    interval = f"{low:.4g} to {high:.4g}" if low is not None and high is not None else "-"
    count = f"{facts['n']:,}" if facts.get("n") is not None else "-"
    return [name, f"{facts['value']:.4g}", interval, count, facts.get("protocol", "")]
