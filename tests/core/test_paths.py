from __future__ import annotations

import sys
from pathlib import Path

import pytest

from conjure.core import paths
from conjure.core.errors import ConjureError

VARIABLES = [
    *("CONJURE_CACHE", "CONJURE_DATA", "CONJURE_OFFLINE"),
    *("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "HF_HUB_OFFLINE"),
]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in (*VARIABLES, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path


def test_defaults(bare: Path) -> None:
    assert paths.cache_dir() == bare / ".cache" / "conjure"
    assert paths.hub_cache() == bare / ".cache" / "huggingface" / "hub"
    assert paths.data_dir() is None
    assert not paths.offline()


def test_variables_win(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert paths.cache_dir() == Path("/x/conjure")
    assert paths.hub_cache() == Path("/x/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/hf")
    assert paths.hub_cache() == Path("/hf/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/hub")
    assert paths.hub_cache() == Path("/hub")
    monkeypatch.setenv("CONJURE_CACHE", "~/c")
    assert paths.cache_dir() == bare / "c"
    monkeypatch.setenv("CONJURE_DATA", "/d")
    assert paths.data_dir() == Path("/d")


def test_empty_variables_count_as_unset(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
    test_defaults(bare)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the XDG specification
    assert paths.cache_dir() == bare / ".cache" / "conjure"


def test_mac(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert paths.cache_dir() == bare / "Library" / "Caches" / "conjure"
    assert paths.hub_cache() == bare / ".cache" / "huggingface" / "hub"


@pytest.mark.parametrize("name", ["CONJURE_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize(
    ("value", "expected"), [("1", True), ("TRUE", True), ("0", False), ("", False), ("no", False)]
)
def test_offline(monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: bool) -> None:
    monkeypatch.setenv(name, value)
    assert paths.offline() is expected


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", none)
    with pytest.raises(ConjureError, match="home folder"):
        paths.cache_dir()


def test_recipes_are_in_the_package_or_in_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "conjure"
    monkeypatch.setattr(paths, "_PACKAGE", package)
    assert paths.recipes_dir() == tmp_path / "recipes"
    (package / "recipes").mkdir(parents=True)
    assert paths.recipes_dir() == package / "recipes"
    assert paths.starters_dir() == package / "starters"
