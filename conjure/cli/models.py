"""`conjure models`: models of the Hugging Face hub, fetched, listed, shown and removed."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from conjure.cli import names
from conjure.cli.names import completing
from conjure.cli.render import Follower, note, out, paint, table
from conjure.core.errors import ConjureError
from conjure.core.files import size

if TYPE_CHECKING:
    from pathlib import Path

    from conjure.core.hub import Plan
    from conjure.core.shelf import ModelInfo

HELP = {"help_option_names": ["-h", "--help"]}
EPILOG = """\b
Examples:
  conjure models get openai-community/gpt2
  conjure models list
  conjure models show openai-community/gpt2
  conjure models remove openai-community/gpt2

Models lie in the hub's own cache (HF_HUB_CACHE, HF_HOME), shared with every program that uses it.
HF_ENDPOINT names another hub, HF_TOKEN your token, HF_HUB_OFFLINE=1 fetches nothing."""
GET = """\b
Examples:
  conjure models get openai-community/gpt2
  conjure models get EleutherAI/pythia-70m@step3000
  conjure models get Qwen/Qwen2.5-0.5B-Instruct-GGUF --gguf q8_0
  conjure models get facebook/mms-1b-all --language German

Only what running the model takes is fetched, and no pickle. A download that was stopped goes on."""
REMOVE = """\b
Examples:
  conjure models remove openai-community/gpt2
  conjure models remove EleutherAI/pythia-70m@step3000 -y"""

as_json = click.option("--json", "as_json", is_flag=True, help="The same as JSON.")


@click.group("models", epilog=EPILOG, context_settings=HELP)
def models() -> None:
    """Models of the Hugging Face hub: get, list, show, remove."""


@models.command("get", epilog=GET, context_settings=HELP)
@click.argument("name", metavar="ORG/NAME[@REVISION]")
@click.option("--gguf", default="", metavar="WHICH", help="One GGUF file: its name, or its quantisation (Q4_K_M).")
@click.option("--language", default="", metavar="WHICH", help="With the adapter of this language (MMS): name or code.")
@as_json
def get(name: str, gguf: str, language: str, as_json: bool) -> None:
    """Fetch a model into the hub's cache. Prints its folder, or the GGUF file."""
    from conjure.core import hub, paths

    if paths.offline():
        folder = _kept(name, language)
        note("fetching is switched off; this is what the cache holds")
        out(json.dumps({"name": name, "path": str(folder)}) if as_json else str(folder))
        return
    wanted = hub.plan(name, gguf)
    if language:
        wanted = _with_adapter(wanted, language, name)
    listing = wanted.listing
    already = f", {size(wanted.here)} of them here already" if wanted.here else ""
    note(f"{listing.repo} at commit {listing.commit}: {len(wanted.files)} files, {size(wanted.total)}{already}")
    note(f"its licence: {listing.licence}; the card stays beside it as README.md")
    with Follower() as follow:
        folder = hub.fetch(wanted, on_progress=follow)
    chosen = next((file.name for file in wanted.files if gguf and file.name.endswith(".gguf")), "")
    path = folder / chosen if chosen else folder
    if as_json:
        out(json.dumps({
            "name": f"{listing.repo}/{chosen}" if chosen else listing.repo, "path": str(path),
            "revision": listing.commit, "licence": listing.licence, "bytes": wanted.total,
            "fetched": wanted.total - wanted.here, "files": [file.name for file in wanted.files],
        }))  # fmt: skip
        return
    out(str(path))


def _with_adapter(wanted: Plan, language: str, name: str) -> Plan:
    """The same with the file of a language."""
    from conjure.codecs.language_names import code_of
    from conjure.core import shelf
    from conjure.core.hub_files import adapter

    file = adapter(wanted.listing, lambda codes: code_of(language, codes))
    here = 0
    with contextlib.suppress(ConjureError):  # none of it is here
        held = shelf.find(name) / file.name
        here = file.size if held.is_file() and held.stat().st_size == file.size else 0
    return replace(wanted, files=(*wanted.files, file), here=wanted.here + here)


def _kept(name: str, language: str) -> Path:
    """The folder of a model that is here, where nothing is fetched; `ConjureError` for what is not."""
    from conjure.codecs.language_names import code_of
    from conjure.core import shelf

    online = "unset CONJURE_OFFLINE and HF_HUB_OFFLINE"
    try:
        folder = shelf.find(name)
    except ConjureError:
        raise ConjureError(f"{name} is not on this machine, and fetching is switched off", hint=online) from None
    if language:
        try:
            code_of(language, [each.name.split(".")[1] for each in folder.glob("adapter.*.safetensors")])
        except ConjureError:
            raise ConjureError(f"{name} is here without {language}, and fetching is switched off",
                               hint=online) from None  # fmt: skip
    return folder


@models.command("list", epilog="\b\nExample:\n  conjure models list", context_settings=HELP)
@as_json
def list_(as_json: bool) -> None:
    """The models on this machine, as `conjure list models` shows them."""
    listed(as_json)


@models.command("show", epilog="\b\nExample:\n  conjure models show openai-community/gpt2", context_settings=HELP)
@click.argument("name", shell_complete=completing(names.models))
@as_json
def show(name: str, as_json: bool) -> None:
    """What a model on this machine is: its kind, task, licence, size, and where it lies."""
    from conjure.core import shelf

    info = shelf.info(name)
    if as_json:
        out(json.dumps(_plain(info)))
        return
    header = shelf.card_header(info.path if info.path.is_dir() else info.path.parent)
    rows = [
        ("model", info.name), ("kind", info.kind), ("task", info.task), ("licence", info.licence or "unstated"),
        ("parameters", f"{info.parameters / 1e6:,.1f} M" if info.parameters else "?"), ("size", size(info.bytes)),
        ("made from", header.get("base_model", "")), ("summary", info.summary), ("commit", info.revision),
        ("folder" if info.path.is_dir() else "file", str(info.path)),
    ]  # fmt: skip
    out(table(row for row in rows if row[1]))


@models.command("remove", epilog=REMOVE, context_settings=HELP)
@click.argument("name", metavar="ORG/NAME[@REVISION]", shell_complete=completing(names.models))
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def remove(name: str, yes: bool) -> None:
    """Remove a model from the hub's cache, after saying how much space that frees."""
    from conjure.core import hub

    wanted = hub.removal(name)
    said = f"{name}: {size(wanted.bytes)} in {wanted.paths[0]}"
    if not yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise ConjureError(f"{said} would be removed", hint="-y removes it without asking")
        if not click.confirm(f"{said}. Remove it?", err=True):
            raise ConjureError(f"{name}: left as it is", hint="`conjure models list` shows what there is")
    hub.remove(wanted)
    note(f"removed {name}, {size(wanted.bytes)} are free again")


def listed(as_json: bool) -> None:
    """The models on this machine, on stdout."""
    from conjure.core import shelf

    found = shelf.installed()
    if as_json:
        out(json.dumps([_plain(info) for info in found]))
        return
    rows = [["model", "task", "parameters", "size", "licence", "summary"]]
    for info in found:
        count = f"{info.parameters / 1e6:.1f} M" if info.parameters else "?"
        rows.append([info.name, info.task or info.kind, count, size(info.bytes), info.licence, info.summary])
    head, *rest = table(rows).split("\n")
    out("\n".join([paint(head, "bold", sys.stdout), *rest]))


def _plain(info: ModelInfo) -> dict[str, Any]:
    return {name: str(value) if name == "path" else value for name, value in vars(info).items()}
