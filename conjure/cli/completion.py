"""`conjure completion`: the script that teaches a shell to complete conjure's commands and flags."""

from __future__ import annotations

import click

from conjure.cli.render import note, out

EPILOG = """\b
Examples:
  conjure completion bash >> ~/.bashrc
  conjure completion zsh >> ~/.zshrc
  conjure completion fish > ~/.config/fish/completions/conjure.fish"""
PLACES = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "fish": "~/.config/fish/completions/conjure.fish"}


@click.command("completion", epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("shell", type=click.Choice(list(PLACES)))
def completion(shell: str) -> None:
    """Print the script that teaches bash, zsh or fish to complete commands."""
    import sys

    from click.shell_completion import get_completion_class

    from conjure.cli.main import group

    kind = get_completion_class(shell)
    assert kind is not None, shell
    out(kind(group, {}, "conjure", "_CONJURE_COMPLETE").source().rstrip())
    if sys.stdout.isatty():
        note(f"to install it: conjure completion {shell} {'>' if shell == 'fish' else '>>'} {PLACES[shell]}")
