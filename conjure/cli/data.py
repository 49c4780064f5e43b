"""`conjure data`: data sets by name."""

from __future__ import annotations

import json

import click

from conjure.cli import names
from conjure.cli.names import completing
from conjure.cli.render import Follower, note, out, table
from conjure.core.files import size

EPILOG = """\b
Examples:
  conjure data list
  conjure data get tinyshakespeare
  ls "$(conjure data path tinyshakespeare)"

A set is looked for in the folders that CONJURE_DATA lists, then in the cache, and at last fetched from its origin."""


@click.group("data", epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def data() -> None:
    """Data sets by name: list them, get one, or its path."""


@data.command("list", epilog="\b\nExample:\n  conjure data list")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def list_(as_json: bool) -> None:
    """The data sets: where they are, their licence, and whether weights trained on them may be shipped."""
    listed(as_json)


@data.command("get", epilog="\b\nExample:\n  conjure data get tinyshakespeare")
@click.argument("wanted", nargs=-1, required=True, metavar="NAME...", shell_complete=completing(names.sets))
def get(wanted: tuple[str, ...]) -> None:
    """Fetch data sets from their origin, with checksum; a download that was stopped goes on. Prints the folders."""
    from conjure.data import catalogue, fetch

    for name in wanted:  # a misspelt name is found before the first download, not after it
        if fetch.available(name) is None:
            catalogue.find(name)
    for name in wanted:
        with Follower() as follow:
            folder = fetch.get(name, on_progress=follow)
        out(str(folder))


@data.command("path", epilog="\b\nExample:\n  conjure data path tinyshakespeare")
@click.argument("name", shell_complete=completing(names.sets))
def path(name: str) -> None:
    """The folder of a data set that is on this machine."""
    from conjure.data import fetch

    out(str(fetch.path(name)))


def listed(as_json: bool) -> None:
    """The catalogue, on stdout."""
    from conjure.data import catalogue, fetch

    places = {entry.name: fetch.available(entry.name) for entry in catalogue.CATALOGUE}
    if as_json:
        out(json.dumps([
            {"name": entry.name, "title": entry.title, "licence": entry.licence, "credit": entry.credit,
             "ship": entry.ship, "path": str(places[entry.name]) if places[entry.name] else None}
            for entry in catalogue.CATALOGUE
        ]))  # fmt: skip
        return
    rows = [["name", "here", "size", "licence", "title"]]
    for entry in catalogue.CATALOGUE:
        total = sum(origin.bytes for origin in catalogue.origins(entry))
        here = "yes" if places[entry.name] else "no"
        rows.append([entry.name, here, size(total) if total else "?", entry.licence, entry.title])
    out(table(rows))
    if any(not entry.ship for entry in catalogue.CATALOGUE):
        unshipped = ", ".join(entry.name for entry in catalogue.CATALOGUE if not entry.ship)
        note(f"weights trained on these must not be shipped: {unshipped}")
