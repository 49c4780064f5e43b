from __future__ import annotations

from pathlib import Path

from conjure.core import shelf
from conjure.studio.choices import kinds_of, name, ways


def offered() -> dict[str, shelf.ModelInfo]:
    return {info.name: info for info in shelf.installed() if info.name.startswith("starter/")}


def found(*kinds: str) -> dict[tuple[str, str], tuple[str, ...]]:
    return {(way.output, way.task): way.models for way in ways(kinds, offered())}


def test_only_what_a_model_here_can_do_is_offered() -> None:
    there = found("text")
    assert there["image", "draw"] == ("starter/pictograms",)
    assert there["text", "chat"] == ("starter/chat",)
    assert ("image", "sample") not in there  # no model for it comes with conjure
    assert all(there.values())


def test_the_default_model_is_the_first() -> None:
    assert found("text")["text", "continue"][0] == "starter/story"


def test_arithmetic_needs_no_model() -> None:
    assert found("image")["image", "upscale"] == ()


def test_a_picture_and_words_can_be_an_edit() -> None:
    assert ("image", "edit") in found("image", "text")


def test_nothing_comes_of_what_no_edge_takes() -> None:
    assert found("image", "image") == {}


def test_each_model_goes_by_its_own_edge() -> None:
    way = next(way for way in ways(["text"], offered()) if (way.output, way.task) == ("text", "continue"))
    assert way.edge("starter/story").module == "text_to_text"
    assert way.edge("starter/chat").module == "continuation"
    assert way.edge("none at all") is way.edges[0]


def test_files_come_before_the_prompt_and_pictures_before_texts(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("hello")
    (tmp_path / "looks-like.txt").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    files = [tmp_path / "words.txt", tmp_path / "looks-like.txt"]
    assert kinds_of(files, "make it green") == ["image", "text", "text"]
    assert kinds_of([], " ") == []


def test_kinds_in_words() -> None:
    assert (name("image"), name("shape")) == ("a picture", "a shape")
