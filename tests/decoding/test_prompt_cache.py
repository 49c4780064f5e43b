"""What was read is not read again, and whatever lies in the folder, the text is the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from safetensors.torch import load_file

from conjure.decoding.generate import Decoding, generate
from conjure.decoding.prompt_cache import PromptCache
from tests.decoding.networks import Letters, Table, toy

LONG = [1 + (7 * i) % 5 for i in range(100)]
GREEDY = Decoding(tokens=10, temperature=0)


def written(network: Table, prompt: list[int], cache: PromptCache | None, context: int = 0) -> tuple[list[int], list]:
    """Ids, and the shapes of what the network had to read before the first of them."""
    network.given.clear()
    (found,) = generate(network, Letters(), [prompt], GREEDY, seeds=[0], prompt_cache=cache, context=context)
    return found.ids, network.given[: len(network.given) - 9]


def test_a_beginning_is_read_once(tmp_path: Path) -> None:
    network, cache = Table(), PromptCache(tmp_path / "new", "model")
    expected, plain = written(network, LONG, None)
    assert plain == [(1, 100)]
    assert written(network, LONG, cache) == (expected, [(1, 99), (1, 1)])
    assert written(network, LONG, cache) == (expected, [(1, 1)])
    longer = LONG + [2] * 40
    assert written(network, longer, cache) == (written(network, longer, None)[0], [(1, 40), (1, 1)])
    assert written(network, longer[:-10], cache)[1] == [(1, 31)]  # too little is new to be worth a file
    assert written(network, [3, *LONG], cache)[1] == [(1, 100), (1, 1)]
    assert written(network, LONG[:20], cache)[1] == [(1, 20)]
    assert len(list(cache.folder.iterdir())) == 3
    assert written(network, LONG, PromptCache(cache.folder, "another"))[1] == [(1, 99), (1, 1)]


def test_a_transformer_goes_on_from_disk_as_if_it_had_read_all(tmp_path: Path) -> None:
    network, cache = toy(vocab=27), PromptCache(tmp_path, "toy")
    decoding = Decoding(tokens=60)
    texts = [
        generate(network, Letters(), [LONG], decoding, seeds=[4], prompt_cache=each, context=128)
        for each in (None, cache, cache)
    ]
    assert texts[0] == texts[1] == texts[2]
    assert len(list(tmp_path.iterdir())) == 1  # what it reads when its context is full is not kept


@pytest.mark.parametrize("damage", ["empty", "short", "other tensors", "noise"])
def test_broken_files_are_replaced(tmp_path: Path, damage: str) -> None:
    network, cache = Table(), PromptCache(tmp_path, "model")
    expected, _ = written(network, LONG, cache)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    if damage == "other tensors":
        written(network, LONG[:40], cache)
        other = next(each for each in tmp_path.iterdir() if each != path)
        other.replace(path)
    else:
        path.write_bytes({"empty": b"", "short": whole[: len(whole) // 2], "noise": b"\xff" * 500}[damage])
    assert written(network, LONG, cache) == (expected, [(1, 99), (1, 1)])
    assert path.read_bytes() == whole and load_file(path)
    assert written(network, LONG, cache) == (expected, [(1, 1)])


def test_the_folder_keeps_what_was_used_last(tmp_path: Path) -> None:
    network, prompts = Table(), [[first, *LONG] for first in (1, 2, 3)]
    written(network, prompts[0], PromptCache(tmp_path, "model"))
    (path,) = tmp_path.iterdir()
    cache = PromptCache(tmp_path, "model", limit=int(2.5 * path.stat().st_size))
    (tmp_path / "notes.txt").write_text("not ours")
    written(network, prompts[1], cache)
    for age, each in enumerate(sorted(tmp_path.glob("*.safetensors"), key=lambda each: each == path)):
        os.utime(each, (1000 + age, 1000 + age))
    assert path.stat().st_mtime == 1001
    second = next(each for each in tmp_path.glob("*.safetensors") if each != path)
    written(network, prompts[1], cache)  # used: now the newest
    written(network, prompts[2], cache)
    left = set(tmp_path.glob("*.safetensors"))
    assert len(left) == 2 and second in left and path not in left and (tmp_path / "notes.txt").exists()
    written(network, prompts[0], PromptCache(tmp_path, "model", limit=10))
    assert set(tmp_path.glob("*.safetensors")) == left


def test_a_batch_of_different_prompts_does_without(tmp_path: Path) -> None:
    cache = PromptCache(tmp_path, "model")
    generate(Table(), Letters(), [LONG, LONG[1:]], GREEDY, seeds=[0, 0], prompt_cache=cache)
    assert not list(tmp_path.iterdir())
