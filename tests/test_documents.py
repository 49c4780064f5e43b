"""The documents say what is: README blocks can be read and run, and what the pages name exists.

`.ci/run` runs the README's blocks; here they are only read, so that a slip shows in seconds.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from conjure.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ("architecture", "language", "families", "speed", "log", "provenance", "data", "images", "serve", "history",
        "studio", "sound")
PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{page}.md" for page in DOCS))


def reader() -> ModuleType:
    path = ROOT / ".ci" / "readme_blocks.py"
    spec = importlib.util.spec_from_file_location("readme_blocks", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["readme_blocks"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


READ = reader()
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_set_up_is_two_commands() -> None:
    plain = [line.partition("#")[0].strip() for line in READ.setup_commands(README)]
    assert plain == [
        'pip install . && conjure make "a red apple" -o apple.png',
        "pip install '.[dev]' && pytest -n 2",
    ]


@pytest.mark.parametrize("block", READ.blocks(README), ids=lambda block: f"line {block.line}")
def test_every_block_can_be_read(block: object) -> None:
    language, text = block.language, block.text  # type: ignore[attr-defined]
    if language in ("sh", "console"):
        done = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    elif language == "python":
        compile(text, "README.md", "exec")


def test_the_blocks_name_commands_that_exist() -> None:
    texts = [block.text for block in READ.blocks(README) if block.language in ("sh", "console")]
    lines = [shlex.split(line, comments=True) for line in "".join(texts).splitlines()]
    used = {after for line in lines for before, after in itertools.pairwise(line) if before == "conjure"}
    assert used and used <= set(COMMANDS)


def test_the_table_of_commands_is_complete() -> None:
    assert re.findall(r"^\| `conjure ([a-z]+)", README, flags=re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    found = re.findall(r"(?<!!)\[[^\]]*\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
    assert [link for link in found if "://" not in link and not (path.parent / link).exists()] == []


def test_what_the_architecture_names_exists() -> None:
    """`file.py` and `file.py:name`, below conjure/ or the root."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z][\w./-]*\.py)(?::(\w+))?`", text))
    assert len(named) > 50
    assert [f"{file}:{name}" for file, name in sorted(named) if not exists(file, name)] == []


def exists(file: str, name: str) -> bool:
    for path in (ROOT / "conjure" / file, ROOT / file):
        if path.is_file():
            defined = rf"^(?:(?:async )?def |class |){name}\b(?:[(:]| *=)"
            return not name or re.search(defined, path.read_text(encoding="utf-8"), flags=re.MULTILINE) is not None
    return False


def test_a_name_that_is_gone_is_noticed() -> None:
    assert exists("core/errors.py", "") and exists("core/errors.py", "nearest") and exists("media/kinds.py", "SUFFIXES")
    assert not exists("core/errors.py", "nearer") and not exists("core/faults.py", "")


GOOD = "a\n```sh\nls\n```\n~~~~text\n```\n~~~\n~~~~\n"


def test_fences_are_read_as_markdown_means_them() -> None:
    first, second = READ.blocks(GOOD)
    assert (first.language, first.line, first.text, first.runs) == ("sh", 3, "ls\n", True)
    assert (second.language, second.line, second.text, second.runs) == ("text", 6, "```\n~~~\n", False)
    assert READ.blocks("    ```sh\n    indented code\n    ```\nand `code`\n") == []


@pytest.mark.parametrize(
    ("markdown", "said"),
    [("```sh\nls\n", "line 1: this block is not closed"), ("\n```\nls\n```\n", "line 2: expected a block of sh"),
     ("```ruby\n1\n```\n", "got 'ruby'"), ("```sh\nls\n``` sh\n", "not closed")],
)  # fmt: skip
def test_a_block_that_is_neither_run_nor_shown_is_an_error(markdown: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        READ.blocks(markdown)


def test_running_a_block_tells_good_from_bad(capsys: pytest.CaptureFixture[str]) -> None:
    good = READ.Block("sh", 1, 'test -z "$(ls -A)" && test "$CONJURE_OFFLINE" = 1 && touch made\n')
    assert READ.run(good) and READ.run(good), "each in an empty folder of its own, offline"
    assert not READ.run(READ.Block("sh", 7, "echo whispered\nfalse\ntrue\n"))
    said = capsys.readouterr().out
    assert said.count("ok  ") == 2 and "FAIL  README.md:7" in said and "whispered" in said
