"""`conjure eval`: a model's published numbers, measured again, and its scores on suites of questions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from conjure.cli import names
from conjure.cli.names import completing
from conjure.cli.render import Follower, out, table
from conjure.core.errors import ConjureError

EPILOG = """\b
Examples:
  conjure eval starter/story
  conjure eval starter/story --data my-book.txt
  conjure eval starter/pictograms --json
  conjure eval runs/mnist-dcgan --copies
  conjure eval starter/story --suite llm_eval_small
  conjure eval org/name --suite hellaswag --suite arc_easy --limit 200 -o scores/
  conjure eval org/name --suite gsm8k --suite-file gsm8k/ --shots 8

Suites: mmlu (or mmlu_stem, mmlu_anatomy, ...), arc_easy, arc_challenge, hellaswag, piqa, boolq,
openbookqa, copa, lambada_openai, gsm8k, truthfulqa_mc1, truthfulqa_mc2, wikitext, wsc273,
llm_eval_small, perplexity."""

PERPLEXITY = "perplexity"


def _suites() -> Iterable[str]:
    from conjure.data.suites import GROUPS, SUITES

    return [PERPLEXITY, *GROUPS, *SUITES]


@click.command("eval", epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", metavar="MODEL", shell_complete=completing(names.models))
@click.option(
    "--data", "sets", multiple=True, metavar="NAME-or-FILE", help="Measure on these instead of the model's own."
)
@click.option(
    "--suite", "suites", multiple=True, metavar="NAME", shell_complete=completing(_suites),
    help="Questions in the LM Evaluation Harness's protocol; may be given several times.",
)  # fmt: skip
@click.option("--suite-file", metavar="PATH", help="A file or folder with the items of the suites.")
@click.option("--shots", type=int, help="Solved examples before each question, instead of the suite's own number.")
@click.option("--limit", type=int, help="Ask only the first so many items.")
@click.option(
    "--copies", is_flag=True, help="Does it copy its training pictures? The answer goes into the model's card."
)
@click.option("-o", "--output", metavar="FOLDER", help="Keep all answers there; a run that was stopped goes on.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def evaluate(
    model: str,
    sets: tuple[str, ...],
    suites: tuple[str, ...],
    suite_file: str | None,
    shots: int | None,
    limit: int | None,
    copies: bool,
    output: str | None,
    as_json: bool,
) -> None:
    """Measure a model's published numbers again, or how it does on suites of questions."""
    given = {"--suite-file": suite_file, "--shots": shots, "--limit": limit, "--output": output}
    asked = [name for name in suites if name != PERPLEXITY]
    _check(sets, suites, asked, given)
    found: dict[str, Any] = {"model": model}
    with Follower() as follow:
        if asked:
            from conjure.tasks.suites import examine

            found |= examine(
                model, asked, given=suite_file, shots=shots, limit=limit, folder=output, on_event=follow
            )
        if copies:
            from conjure.tasks.training import check_copies

            found |= {"figures": check_copies(model, follow)}
        elif not suites or PERPLEXITY in suites:
            from conjure.tasks.training import evaluate as measured

            found |= {"data": list(sets), "figures": measured(model, sets, follow)}
    if as_json:
        out(json.dumps(found))
        return
    if asked:
        out(table(_scores(found)))
    if "figures" in found:
        rows = [_row(figure) for figure in found["figures"].items()]
        out(table([["figure", "value", "95 % interval", "n", "protocol"], *rows]))


def _check(
    sets: tuple[str, ...], suites: tuple[str, ...], asked: list[str], given: Mapping[str, Any]
) -> None:
    from conjure.data.suites import named

    flags = [flag for flag, value in given.items() if value is not None]
    place = given["--suite-file"]
    if flags and not asked:
        raise ConjureError(f"{flags[0]} belongs to --suite", hint="name one: --suite hellaswag")
    if sets and suites and PERPLEXITY not in suites:
        raise ConjureError(
            "--data names texts to predict, the items of a suite come with --suite-file",
            hint="conjure eval MODEL --suite perplexity --data FILE",
        )
    if place and Path(place).is_file() and sum(len(named(name)) for name in asked) > 1:
        raise ConjureError("one file holds the items of one suite", hint="name a folder, or run the suites one by one")


def _scores(found: Mapping[str, Any]) -> list[list[str]]:
    """A row for each score: groups after their suites."""
    rows = [["suite", "shots", "score", "value", "standard error", "n"]]
    for name, facts in [*found["suites"].items(), *found["groups"].items()]:
        for metric, figure in facts["scores"].items():
            shots = str(facts.get("shots", "-"))
            rows.append([name, shots, metric, _short(figure["value"]), _short(figure["stderr"]), f"{figure['n']:,}"])
    return rows


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if value < 1000 else f"{value:.4g}"


def _row(figure: tuple[str, Any]) -> list[str]:
    name, facts = figure
    low, high = facts.get("low"), facts.get("high")
    interval = f"{low:.4g} to {high:.4g}" if low is not None and high is not None else "-"
    count = f"{facts['n']:,}" if facts.get("n") is not None else "-"
    return [name, f"{facts['value']:.4g}", interval, count, facts.get("protocol", "")]
