"""The fenced blocks of README.md: read, listed, run.

    python .ci/readme_blocks.py list         what is in the README and what is run of it
    python .ci/readme_blocks.py setup 2      the second set-up command
    python .ci/readme_blocks.py run          every `sh` and `python` block, each in an empty temporary folder

`sh` and `python` blocks are run, `console`, `text` and `yaml` blocks are shown only. The set-up commands are the first
`console` block, one a line. Only the standard library: this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
RUNNERS = {"sh": ("bash", "-euo", "pipefail", "-c"), "python": ("python", "-c")}
SHOWN = ("console", "text", "yaml")
SECONDS = 300  # for one block
FENCE = re.compile(r" {0,3}(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`]*)$")


@dataclass(frozen=True)
class Block:
    """`line` is where its content begins, counted from 1."""

    language: str
    line: int
    text: str

    @property
    def runs(self) -> bool:
        return self.language in RUNNERS


def blocks(markdown: str) -> list[Block]:
    """The fenced blocks in their order; ValueError for one that is not closed, or of a language that is neither run
    nor shown."""
    found: list[Block] = []
    lines = iter(enumerate(markdown.splitlines(), start=1))
    for number, line in lines:
        opening = FENCE.match(line)
        if opening is None:
            continue
        language = opening["info"].strip()
        if language not in (*RUNNERS, *SHOWN):
            raise ValueError(f"line {number}: expected a block of {', '.join((*RUNNERS, *SHOWN))}, got {language!r}")
        inside: list[str] = []
        for _, each in lines:
            closing = FENCE.match(each)
            if closing and not closing["info"] and closing["fence"].startswith(opening["fence"]):
                break
            inside.append(each)
        else:
            raise ValueError(f"line {number}: this block is not closed")
        found.append(Block(language, number + 1, "\n".join(inside) + "\n"))
    return found


def setup_commands(markdown: str) -> list[str]:
    """The lines of the first `console` block."""
    first = next(block for block in blocks(markdown) if block.language == "console")
    return [line for line in first.text.splitlines() if line.strip()]


def run(block: Block) -> bool:
    """Whether a block ends well in an empty folder, with no network for conjure and nothing on stdin."""
    offline = {"CONJURE_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        try:
            done = subprocess.run(
                [*RUNNERS[block.language], block.text], cwd=folder, env=os.environ | offline, timeout=SECONDS,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
            code, said = str(done.returncode), done.stdout
        except subprocess.TimeoutExpired as error:
            code, said = f"no end after {SECONDS} s", error.stdout or b""
    good = code == "0"
    print(f"{'ok  ' if good else 'FAIL'}  README.md:{block.line}  {time.monotonic() - began:.1f} s", flush=True)
    if not good:
        print(f"{block.text}-- ended with {code}, said:\n{said.decode('utf-8', 'replace')}", flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description="The fenced blocks of README.md.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="every block, and whether it is run")
    verbs.add_parser("run", help="run every block that is marked for it")
    verbs.add_parser("setup", help="print a set-up command").add_argument("number", type=int, choices=(1, 2))
    wish = parser.parse_args()
    markdown = README.read_text(encoding="utf-8")
    if wish.verb == "setup":
        print(setup_commands(markdown)[wish.number - 1])
    elif wish.verb == "list":
        for block in blocks(markdown):
            print(f"README.md:{block.line}  {block.language}, {'run' if block.runs else 'shown'}")
    else:
        failed = [block for block in blocks(markdown) if block.runs and not run(block)]
        return 1 if failed else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
