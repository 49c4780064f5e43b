"""`conjure studio`: the server with a page at `/`."""

from __future__ import annotations

import threading
import time
import webbrowser
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from conjure.cli.render import note
from conjure.cli.serve import serve, settled
from conjure.core.errors import ConjureError

if TYPE_CHECKING:
    import uvicorn

EPILOG = """\b
Examples:
  conjure studio
  conjure studio --port 9000 --no-open
  conjure studio --host 0.0.0.0                 (draws a key; the address that is printed lets a browser in)

The API of `conjure serve` is there too, at the same address."""
LOOK = 0.05  # seconds between two looks at whether the server is up


def _studio(*, opened: bool, **options: Any) -> None:
    """A page for all of it: make, chat, edit, compare, train, and what was made."""
    from conjure.studio.ground import prepared

    with prepared():
        try:
            from conjure.serve.app import build
            from conjure.serve.listening import listen
            from conjure.studio.app import mounted
        except ModuleNotFoundError as error:
            raise ConjureError(f"the studio takes {error.name}", hint="pip install 'conjure[serve]'") from None
        settings = settled(studio=True, **options)

        def said(port: int, server: uvicorn.Server) -> None:
            name = "localhost" if settings.loopback else settings.host
            key = f"enter?key={quote(settings.key, safe='')}" if settings.key else ""
            note(f"the studio is at http://{name}:{port}/{key} (Ctrl-C ends it)")
            if opened:
                threading.Thread(target=_open, args=(server, f"http://{name}:{port}/{key}"), daemon=True).start()

        listen(mounted(build(settings)), settings, said)


def _open(server: uvicorn.Server, address: str) -> None:
    """The page in a browser, once the server is up."""
    while not (server.started or server.should_exit):
        time.sleep(LOOK)
    if server.started:
        webbrowser.open(address)


studio = click.Command(
    "studio", callback=_studio, help=_studio.__doc__, epilog=EPILOG,
    params=[*serve.params, click.Option(["--open/--no-open", "opened"], default=True, show_default=True,
                                        help="Open the page in a browser.")],
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
