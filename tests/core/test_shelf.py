from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from conjure.core import paths, shelf
from conjure.core.errors import ConjureError

COMMIT, OLDER = "0123456789abcdef0123456789abcdef01234567", "89abcdef" * 5


def model(folder: Path, weights: int = 10, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"\0" * weights)
    return folder


@pytest.fixture
def starters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "starters"
    config = {
        "format": 1,
        "kind": "transformer",
        "task": "text_to_text",
        "parameters": 15_000_000,
        "licence": "Apache-2.0",
        "summary": "tells stories",
    }
    model(root / "story", 30, **config)
    model(root / "pictograms", 20, kind="dit", task="text_to_image")
    monkeypatch.setattr(paths, "starters_dir", lambda: root)
    return root


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "hub"
    repo = root / "models--openai--gpt2"
    blob = repo / "blobs" / "abc"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"\0" * 40)
    for commit in (COMMIT, OLDER):
        folder = repo / "snapshots" / commit
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "license": "mit"}))
        (folder / "model.safetensors").symlink_to(blob)
    (repo / "refs" / "pr").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "refs" / "pr" / "1").write_text(OLDER)
    (root / "datasets--openai--x").mkdir()
    (root / "models--half--fetched" / "snapshots").mkdir(parents=True)
    (root / ".locks").mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(root))
    return root


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no-hub"))
    monkeypatch.setattr(paths, "starters_dir", lambda: tmp_path / "no-starters")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def test_installed_lists_starters_and_hub(starters: Path, hub: Path) -> None:
    pictograms, story, gpt2 = shelf.installed()
    assert (pictograms.name, pictograms.task, pictograms.kind) == (
        "starter/pictograms",
        "text_to_image",
        "dit",
    )
    assert story == shelf.ModelInfo(
        name="starter/story",
        path=starters / "story",
        task="text_to_text",
        kind="transformer",
        parameters=15_000_000,
        bytes=30,
        licence="Apache-2.0",
        summary="tells stories",
    )
    assert (gpt2.name, gpt2.kind, gpt2.bytes, gpt2.licence) == ("openai/gpt2", "gpt2", 40, "mit")
    assert gpt2.path.name == COMMIT


def test_installed_opens_nothing_but_configs(
    starters: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, real = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: opened.append(self.name) or real(self))
    monkeypatch.setattr(builtins, "open", lambda *a, **k: pytest.fail(f"opened {a}"))
    assert len(shelf.installed()) == 3
    assert opened == ["config.json"] * 3


def test_installed_passes_over_what_is_broken(starters: Path) -> None:
    (starters / "story" / "config.json").write_text("{")
    (starters / "empty").mkdir()
    assert [info.name for info in shelf.installed()] == ["starter/pictograms"]
    with pytest.raises(ConjureError, match="no valid JSON"):
        shelf.info("starter/story")


def test_nothing_installed() -> None:
    assert shelf.installed() == []
    with pytest.raises(ConjureError) as caught:
        shelf.find("starter/story")
    assert caught.value.hint == "none is installed"


def test_find_a_starter_and_a_folder(starters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shelf.find("starter/story") == starters / "story"
    assert shelf.find(starters / "story") == starters / "story"
    assert shelf.find(str(starters / "story")) == starters / "story"
    monkeypatch.chdir(tmp_path)
    assert shelf.find("starters/story") == Path("starters/story")
    assert shelf.info("starter/story").parameters == 15_000_000


@pytest.mark.parametrize(
    ("name", "commit"),
    [
        ("openai/gpt2", COMMIT),
        ("openai/gpt2@main", COMMIT),
        ("openai/gpt2@pr/1", OLDER),
        (f"openai/gpt2@{OLDER}", OLDER),
        (f"openai/gpt2@{OLDER[:7]}", OLDER),
    ],
)
def test_find_in_the_hub_cache(hub: Path, name: str, commit: str) -> None:
    assert shelf.find(name) == hub / "models--openai--gpt2" / "snapshots" / commit


@pytest.mark.parametrize("revision", ["mian", "012345", "../../..", "refs/../main", "v1"])
def test_unknown_revisions(hub: Path, revision: str) -> None:
    with pytest.raises(ConjureError, match="revision"):
        shelf.find(f"openai/gpt2@{revision}")


def test_unknown_revision_suggests(hub: Path) -> None:
    with pytest.raises(ConjureError) as caught:
        shelf.find("openai/gpt2@mian")
    assert caught.value.hint == "did you mean 'main'?; to fetch it: conjure models get openai/gpt2@mian"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("starter/stroy", "did you mean 'starter/story'?"),
        ("story", "did you mean 'starter/story'?"),
        ("starters/pictograms", "did you mean 'starter/pictograms'?"),
        ("gpt2", "did you mean 'openai/gpt2'?"),
        ("Openai/gpt-2", "did you mean 'openai/gpt2'?"),
        ("", "known: openai/gpt2, starter/pictograms, starter/story"),
        ("starter/../story", "did you mean 'starter/story'?"),
    ],
)
def test_unknown_names_suggest(starters: Path, hub: Path, name: str, hint: str) -> None:
    with pytest.raises(ConjureError, match="unknown model") as caught:
        shelf.find(name)
    assert caught.value.hint.startswith(hint)


def test_hub_names_that_are_not_here_say_how_to_fetch(starters: Path) -> None:
    with pytest.raises(ConjureError) as caught:
        shelf.find("EleutherAI/pythia-14m@step1")
    assert caught.value.hint.endswith("conjure models get EleutherAI/pythia-14m@step1")


def test_a_folder_says_what_it_lacks(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    with pytest.raises(ConjureError, match=r"has no config.json and no \*.safetensors"):
        shelf.find(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ConjureError, match=r"has no \*.safetensors"):
        shelf.find(folder)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ConjureError) as caught:
        shelf.find(folder)
    assert "pickle" in caught.value.hint
    (folder / "model.safetensors").write_bytes(b"x")
    assert shelf.find(folder) == folder


def test_a_folder_of_models_names_them(tmp_path: Path) -> None:
    model(tmp_path / "runs" / "first")
    with pytest.raises(ConjureError) as caught:
        shelf.find(tmp_path / "runs")
    assert caught.value.hint.endswith("runs/first")


def test_a_file_is_no_model(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    with pytest.raises(ConjureError, match="this is a file"):
        shelf.find(folder / "model.safetensors")


def test_weights_may_lie_in_subfolders(tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (folder / "unet" / "model.safetensors").write_bytes(b"12345")
    assert (shelf.info(folder).kind, shelf.info(folder).bytes) == ("StableDiffusionPipeline", 5)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'"x"', b"null"])
def test_broken_configs(tmp_path: Path, content: bytes) -> None:
    folder = model(tmp_path / "m")
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ConjureError, match=r"config\.json"):
        shelf.info(folder)


def test_configs_of_wrong_types_do_not_matter(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", task=5, kind=None, parameters="many", licence=["x"])
    info = shelf.info(folder)
    assert (info.task, info.kind, info.parameters, info.licence) == ("", "", 0, "")


HEADER = """---
license: other
license_name: 'tiny-licence'  # its own
base_model:
- org/large
tags:
  - text
---
license: mit
"""


@pytest.mark.parametrize(("card", "header"), [
    (HEADER, {"license": "other", "license_name": "tiny-licence", "base_model": "org/large", "tags": "text"}),
    ("---\r\nlicense: mit\r\n---\r\n", {"license": "mit"}),
    ("---\nlicense: mit\n", {}),
    ("license: mit", {}),
    ("", {}),
    ("---\n- a\n  x\n: b\n---\n", {}),
])  # fmt: skip
def test_the_header_of_a_card(tmp_path: Path, card: str, header: dict[str, str]) -> None:
    (tmp_path / "README.md").write_bytes(card.encode())
    assert shelf.card_header(tmp_path) == header


def test_a_card_that_is_absurd_or_missing_has_no_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shelf.card_header(tmp_path) == {}
    (tmp_path / "README.md").write_bytes(b"---\nlicense: \xff\n---")
    assert shelf.card_header(tmp_path) == {"license": "\N{REPLACEMENT CHARACTER}"}
    monkeypatch.setattr(shelf, "MAX_CARD_BYTES", 5)
    assert shelf.card_header(tmp_path) == {}


@pytest.mark.parametrize(("architecture", "task"), [
    ("GPT2LMHeadModel", "text_to_text"), ("LlamaForCausalLM", "text_to_text"), ("MarianMTModel", "translate"),
    ("T5ForConditionalGeneration", "text_to_text"), ("BertForMaskedLM", "fill"), ("BertModel", ""),
    ("BertForSequenceClassification", "classify"), (5, ""),
])  # fmt: skip
def test_the_task_of_a_public_model(tmp_path: Path, architecture: Any, task: str) -> None:
    assert shelf.info(model(tmp_path / "m", architectures=[architecture])).task == task


def test_the_licence_of_a_public_model_stands_in_its_card(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", model_type="llama")
    assert shelf.info(folder).licence == ""
    (folder / "README.md").write_text(HEADER)
    assert shelf.info(folder).licence == "tiny-licence"
    ours = model(tmp_path / "ours", format=1, licence="CC0-1.0")
    (ours / "README.md").write_text(HEADER)
    assert shelf.info(ours).licence == "CC0-1.0"


def test_parameters_are_counted_by_the_head_of_the_weights(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", model_type="llama")
    assert shelf.info(folder).parameters == 0  # the stand-in's weights are no safetensors file
    head = json.dumps({"__metadata__": {}, "a": {"shape": [3, 4]}, "b": {"shape": []}}).encode()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
    assert shelf.info(folder).parameters == 13
    (folder / "model.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + head)
    assert shelf.info(folder).parameters == 0


def test_a_gguf_file_is_a_model(tmp_path: Path) -> None:
    file = tmp_path / "m" / "tiny.Q8_0.gguf"
    file.parent.mkdir()
    file.write_bytes(b"GGUF")
    assert shelf.find(file) == file == shelf.gguf_file(file) == shelf.gguf_file(file.parent)
    assert shelf.find(file.parent) == file.parent
    assert (shelf.info(file).kind, shelf.info(file).bytes, shelf.info(file.parent).bytes) == ("gguf", 4, 4)
    (file.parent / "tiny.Q4_0.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConjureError, match=r"there are 2: tiny\.Q4_0\.gguf, tiny\.Q8_0\.gguf"):
        shelf.gguf_file(file.parent)
    assert shelf.gguf_file(model(tmp_path / "other")) is None


@pytest.mark.parametrize(("name", "parts"), [
    ("org/name", ("org/name", "")), ("org/name@v1", ("org/name", "v1")),
    ("org/name@refs/pr/1", ("org/name", "refs/pr/1")),
    ("name", None), ("starter/story", None), ("org/name/x.gguf", None), ("org/name@../x", None), ("/org/name", None),
])  # fmt: skip
def test_names_of_the_hub(name: str, parts: tuple[str, str] | None) -> None:
    assert shelf.names(name) == parts


def test_a_picture_model_is_a_folder_or_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (folder / "unet" / "model.safetensors").write_bytes(b"12345")
    (tmp_path / "whole.safetensors").write_bytes(b"123")
    whole = tmp_path / "whole.safetensors"
    for path, kind, size in ((folder, "StableDiffusionPipeline", 5), (whole, "single file", 3)):
        assert shelf.is_picture_model(path) and shelf.find(path) == path
        info = shelf.info(path)
        assert (info.task, info.kind, info.bytes) == ("draw", kind, size)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    assert not shelf.is_picture_model(folder) and not shelf.is_picture_model(tmp_path)
    (tmp_path / "old.ckpt").write_bytes(b"PK")
    with pytest.raises(ConjureError, match="pickle files can run code"):
        shelf.find(tmp_path / "old.ckpt")
