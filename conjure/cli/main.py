"""`conjure`: the group of commands, imported one by one, and the one place where errors become exit codes.

0 done | 1 a fault of conjure, or a reader that went away | 2 something the user can put right | 130 Ctrl-C
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Sequence

import click

from conjure import __version__
from conjure.core.errors import ConjureError, nearest

COMMANDS: dict[str, tuple[str, str]] = {
    "make": ("make:make", "Make a medium from others: a picture from words, a story from its start."),
    "compare": ("compare:compare", "Compare systems: the same prompt, seeds, size and budget, on one page."),
    "list": ("listing:listing", "What can become what: media in rows, media in columns, the tasks between them."),
    "show": ("show:show", "How a file was made: task, model, inputs, options, seed."),
    "history": ("history:history", "What was made: search it, show it, make it again, delete it."),
    "remake": ("show:remake", "Make a file again from the record it carries, byte for byte."),
    "serve": ("serve:serve", "Serve every task over HTTP, in the OpenAI API's shape where it has one."),
    "studio": ("studio:studio", "A page for all of it: make, chat, edit, compare, train, and what was made."),
    "train": ("train:train", "Train any network by a recipe, in the one loop."),
    "recipes": ("train:recipes", "The recipes that come with conjure, with what they need and what came out."),
    "eval": ("evaluate:evaluate", "Measure a model's published numbers again, or how it does on suites of questions."),
    "models": ("models:models", "Models of the Hugging Face hub: get, list, show, remove."),
    "data": ("data:data", "Data sets by name: list them, get one, or its path."),
    "doctor": ("doctor:doctor", "What this machine can do, where things are, and what is missing for what."),
    "completion": ("completion:completion", "Print the script that teaches bash, zsh or fish to complete commands."),
}
"""Command -> (module in this folder and name in it, the first line of its help)."""

EPILOG = """\b
Examples:
  conjure make "a red apple" -o apple.png
  conjure make "Once upon a time"
  conjure list
  conjure show apple.png
  conjure train shakespeare-char

Each command explains itself: conjure COMMAND --help"""


class Commands(click.Group):
    """A group that imports a command when it is called, so that `conjure --help` costs next to nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        return getattr(importlib.import_module(f"conjure.cli.{module}"), name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = nearest(args[0], COMMANDS, n=1)
            meant = f"did you mean 'conjure {close[0]}'?" if close else "`conjure --help` lists the commands"
            if " " in args[0]:
                meant = f'to make something of it: conjure make "{args[0]}"'
            raise ConjureError(f"no command is called '{args[0]}'", hint=meant)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version=__version__, prog_name="conjure")
def group() -> None:
    """Any medium in, any medium out, on your own machine."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point; ends the process with the exit code."""
    code = call(arguments)
    gc.freeze()  # or Python goes through all that was imported once more before it ends: 0.4 s after torch
    sys.exit(code)


def call(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code; whatever users can put right ends as two lines on stderr."""
    from conjure.cli.render import fail

    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        # Without standalone mode click hands over what it would otherwise print and exit with.
        ended = group.main(args=words, prog_name="conjure", standalone_mode=False)
        sys.stdout.flush()
        return ended if isinstance(ended, int) else 0
    except ConjureError as error:
        command = f"conjure {words[0]}" if words and words[0] in COMMANDS else "conjure"
        return fail(error.message, error.hint or f"{command} --help shows how it is used")
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else "conjure"
        return fail(error.format_message().removesuffix("."), f"{path} --help shows how it is used")
    except click.ClickException as error:
        return fail(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted. Python would complain again when it flushes at the end.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
