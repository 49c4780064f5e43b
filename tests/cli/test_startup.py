"""Help and listings answer at once, because nothing heavy is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "PIL", "pydantic", "rich", "yaml", "tokenizers", "safetensors", "huggingface_hub")


@pytest.mark.parametrize("line", [["--help"], ["list"], ["list", "models"], ["list", "samplers"], ["make", "--help"],
                                  ["data", "list"], ["data", "path", "--help"], ["recipes"]])  # fmt: skip
def test_commands_that_import_nothing_heavy(line: list[str]) -> None:
    code = (
        "import sys\nfrom conjure.cli.main import call\n"
        f"code = call({line!r})\n"
        f"print(sorted(set(sys.modules) & set({HEAVY!r})), code, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.splitlines()[-1] == "[] 0"
    assert done.stdout


def test_a_voice_imports_what_it_speaks_with_and_no_more() -> None:
    others = ("conjure.models.language", "conjure.models.voice_change", "conjure.codecs.tokenizer",
              "conjure.tasks.speak_figures", "conjure.data.word_sounds", "yaml", "rich", "PIL")  # fmt: skip
    code = (
        "import gc, sys\nfrom conjure.cli.main import call\n"
        "code = call(['make', 'Hello.', '-o', 'a.wav', '--plan'])\n"
        f"print(sorted(set(sys.modules) & set({others!r})), 'conjure.tasks.speak' in sys.modules, gc.isenabled(), "
        "gc.get_freeze_count(), code, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.splitlines()[-1] == "[] True True 0 0"


def test_the_module_runs_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "conjure", "nonsense"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no command is called 'nonsense'\nhint: ")
