from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from conjure.core.errors import ConjureError
from conjure.data import catalogue
from conjure.data.catalogue import CATALOGUE, find, origins


def test_the_catalogue_is_read_without_anything_heavy() -> None:
    code = (
        "import sys, conjure.data.catalogue, conjure.data.fetch; "
        "print(*{'torch', 'numpy', 'PIL', 'fontTools'} & set(sys.modules))"
    )
    root = Path(catalogue.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == ""


def test_every_set_says_whose_it_is_and_where_it_comes_from() -> None:
    assert len({entry.name for entry in CATALOGUE}) == len(CATALOGUE)
    for entry in CATALOGUE:
        assert entry.title and entry.licence and entry.credit and entry.holds
        listed = list(origins(entry))
        if entry.by_hand:
            assert entry.by_hand.startswith("https://") and not listed
            continue
        if entry.instead:
            assert not listed and list(origins(find(entry.instead)))
            continue
        assert len({origin.file for origin in listed}) == len(listed) > 0
        for origin in listed:
            assert origin.url.startswith("https://") and " " not in origin.url
            assert re.fullmatch("[0-9a-f]{64}", origin.sha256) and origin.bytes > 0
            assert not origin.file.startswith("/") and ".." not in origin.file.split("/")


def test_the_documents_name_every_set() -> None:
    table = (Path(catalogue.__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert [entry.name for entry in CATALOGUE if f"| `{entry.name}` |" not in table] == []


def test_the_listed_books() -> None:
    assert [len(list(origins(find(name)))) for name in ("books_children", "books_general")] == [66, 71]
    book = next(origin for origin in origins(find("books_children")) if "Aesop" in origin.file)
    assert book.file == "Aesop/Aesop's Fables.md" and book.bytes == 198_688
    assert book.url.endswith("/944882722e9a/Aesop/Aesop%27s%20Fables.md")


def test_a_near_miss_is_named() -> None:
    with pytest.raises(ConjureError, match="no data set is called 'minst'") as caught:
        find("minst")
    assert caught.value.hint == "did you mean 'mnist'?"
