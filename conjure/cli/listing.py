"""`conjure list`: the matrix of media, the models, the data sets, the samplers. Nothing heavy is imported."""

from __future__ import annotations

import json

import click

from conjure.cli.render import out, paint, table

EPILOG = """\b
Examples:
  conjure list                 what can become what
  conjure list models          the models on this machine
  conjure list data            the data sets that recipes use
  conjure list samplers        the samplers of the diffusion models
  conjure list models --json   the same for a program"""

as_json = click.option("--json", "as_json", is_flag=True, help="The same as JSON.")


@click.group(
    "list", invoke_without_command=True, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@as_json
@click.pass_context
def listing(ctx: click.Context, as_json: bool) -> None:
    """What can become what: media in rows, media in columns, the tasks between them."""
    if ctx.invoked_subcommand is not None:
        return
    from conjure.core import shelf
    from conjure.tasks.table import everything

    edges, there = everything(), {info.name for info in shelf.installed()}
    if as_json:
        out(json.dumps([
            {"from": list(edge.inputs), "to": edge.output, "task": edge.task, "model": edge.model,
             "installed": edge.model in there, "summary": edge.summary}
            for edge in edges
        ]))  # fmt: skip
        return
    sources = dict.fromkeys(" + ".join(edge.inputs) for edge in edges)
    targets = dict.fromkeys(edge.output for edge in edges)
    rows = [["from \\ to", *targets]]
    for source in sources:
        cells = [
            ", ".join(dict.fromkeys(
                edge.task for edge in edges if " + ".join(edge.inputs) == source and edge.output == target
            ))
            for target in targets
        ]
        rows.append([source, *(cell or "-" for cell in cells)])
    out(_headed(rows))
    out()
    rows = [["task", "does", "default model", "installed"]]
    for edge in edges:
        installed = ("yes" if edge.model in there else "no") if edge.model else ""
        row = [edge.task, edge.summary, edge.model or ("none needed" if edge.by_rule else "(--model NAME)"), installed]
        if row not in rows:  # a task may take its inputs in several ways
            rows.append(row)
    out(_headed(rows))


@listing.command("models", epilog="\b\nExample:\n  conjure list models")
@as_json
def models(as_json: bool) -> None:
    """The models on this machine: starters, and what lies in the hub's cache."""
    from conjure.cli.models import listed

    listed(as_json)


@listing.command("data", epilog="\b\nExample:\n  conjure list data")
@as_json
def data(as_json: bool) -> None:
    """The data sets that recipes use: where they are, their licence, whether their models may be shipped."""
    from conjure.cli.data import listed

    listed(as_json)


@listing.command("samplers", epilog="\b\nExample:\n  conjure list samplers")
@as_json
def samplers(as_json: bool) -> None:
    """The samplers of the diffusion models, for --sampler: what each is good for, and what others call it."""
    from conjure.diffusion.names import ALIASES, SAMPLER_NAMES, SPACINGS

    if as_json:
        out(json.dumps({name: {"good for": text, "also": ALIASES[name]} for name, text in SAMPLER_NAMES.items()}))
        return
    rows = [[name, text, ", ".join(ALIASES[name])] for name, text in SAMPLER_NAMES.items()]
    out(_headed([["sampler", "what it is good for", "also understood"], *rows]))
    out()
    out("published models also take where the steps lie, after the name: " + ", ".join(SPACINGS))


def _headed(rows: list[list[str]]) -> str:
    import sys

    head, *rest = table(rows).split("\n")
    return "\n".join([paint(head, "bold", sys.stdout), *rest])
