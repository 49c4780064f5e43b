"""`conjure serve`: the table over HTTP, for programs that speak the OpenAI API."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conjure.cli.render import note
from conjure.core.errors import ConjureError

if TYPE_CHECKING:
    from conjure.serve.settings import Settings

EPILOG = """\b
Examples:
  conjure serve
  conjure serve --port 9000 --memory 8G
  conjure serve --host 0.0.0.0                  (draws a key and prints it once)
  conjure serve --fetch-links=images.example    (follows links of clients to that host)
  conjure serve --model ./my-model --key "$(cat key.txt)"
  curl localhost:8001/v1/images/generations -H 'Content-Type: application/json' -d '{"prompt": "a red apple"}'

Any client of the OpenAI API works with the base URL http://localhost:8001/v1 and any key. On addresses that others
reach a key is needed."""
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@click.command("serve", epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8001, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--key", default="", envvar="CONJURE_KEY", metavar="TEXT", help="What clients must send; or CONJURE_KEY.")
@click.option("--memory", default="4G", show_default=True, metavar="SIZE", help="For the weights of models at once.")
@click.option("--model", "models", multiple=True, metavar="FOLDER", help="A model to offer beside the installed ones.")
@click.option("--origin", "origins", multiple=True, metavar="URL", help="A site whose pages may call the server.")
@click.option("--fetch-links", "links", is_flag=False, flag_value="*", default="", metavar="[HOSTS]",
              help="Follow links of clients: to these hosts, or to any public address.")  # fmt: skip
@click.option("--no-history", "history", is_flag=True, flag_value=False, default=True, help="Keep no results.")
def serve(**options: Any) -> None:
    """Serve every task over HTTP, in the OpenAI API's shape where it has one."""
    try:
        from conjure.serve.app import build
        from conjure.serve.listening import listen
    except ModuleNotFoundError as error:
        raise ConjureError(f"serving takes {error.name}", hint="pip install 'conjure[serve]'") from None
    settings = settled(**options)
    name = "localhost" if settings.loopback else settings.host
    listen(build(settings), settings, lambda port, _: note(f"serving at http://{name}:{port}/v1 (Ctrl-C ends it)"))


def settled(
    *, host: str, port: int, key: str, memory: str, models: tuple[str, ...], origins: tuple[str, ...], history: bool,
    links: str, studio: bool = False,
) -> Settings:  # fmt: skip
    """The settings that the options stand for; a key that had to be drawn is said."""
    from conjure.core import paths, shelf
    from conjure.serve.settings import Settings, secured

    folders = tuple(Path(folder) for folder in models)
    for folder in folders:
        shelf.find(folder)
    given = Settings(host=host, port=port, key=key, memory_bytes=_bytes(memory), models=folders,
                     origins=frozenset(origins), history=paths.history_dir() if history else None, studio=studio,
                     links_from=frozenset(filter(None, (each.strip().lower() for each in links.split(",")))),
                     )  # fmt: skip
    made = secured(given)
    if made.key != given.key:
        note(f"others can reach {host}, so clients must send this key: {made.key}")
    return made


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ConjureError(f"--memory: expected a size such as 4G or 512M, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])
