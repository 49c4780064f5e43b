"""The models that come inside the package: whole, small, described, and doing their work."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import conjure
from conjure.codecs.image_autoencoder import to_pixels
from conjure.core.paths import starters_dir
from conjure.media.audio import Audio
from conjure.metrics.template_search import centred, nearest
from conjure.models.folder import read_config
from conjure.tasks.text_to_image import TextToImage

STARTERS = sorted(path.parent.name for path in starters_dir().glob("*/config.json"))


SOUND = ("chorale", "clean", "codec", "continue-speech", "ear", "translate", "voice", "who")
LICENCES = {
    "clean": "CC-BY-4.0", "codec": "CC-BY-4.0", "continue-speech": "CC-BY-4.0", "ear": "CC-BY-SA-4.0",
    "features-mnist": "CC-BY-SA-3.0", "who": "CC-BY-SA-4.0",
}  # fmt: skip
"""Of those whose data ask for more than our own."""


def test_they_are_few_and_small() -> None:
    assert [name for name in STARTERS if name not in SOUND] == [
        "chat", "code", "features-mnist", "pictograms", "pictograms-edit", "story"
    ]  # fmt: skip
    weights = {path: path.stat().st_size for path in starters_dir().rglob("*.safetensors")}
    of_sound = sum(size for path, size in weights.items() if path.parent.name in SOUND)
    assert of_sound <= 25 * 2**20 and sum(weights.values()) <= 90 * 2**20


@pytest.mark.parametrize("name", STARTERS)
def test_card_and_config_agree(name: str) -> None:
    folder = starters_dir() / name
    config, card = read_config(folder), (folder / "README.md").read_text(encoding="utf-8")
    assert f"licence: {config['licence']}\n" in card and f"summary: {config['summary']}\n" in card
    assert config["licence"] == LICENCES.get(name, "Apache-2.0")
    assert "## Data" in card and "## Limits" in card and "MEASURED" not in card
    assert not [path.name for path in folder.rglob("*") if path.suffix in (".pt", ".pth", ".bin", ".pkl", ".ckpt")]


def test_two_voices_are_told_apart(tmp_path: Path) -> None:
    said = "the king was not in the house that morning, and nobody knew where he had gone"
    for n, voice in enumerate(("rms", "slt", "rms")):
        conjure.make(said, output=tmp_path / f"{n}.wav", voice=voice, seed=n)
    conjure.make(*(tmp_path / f"{n}.wav" for n in range(3)), output=tmp_path / "same.json", task="speakers")
    pairs = json.loads((tmp_path / "same.json").read_text())["pairs"]
    assert pairs[1]["score"] > max(pairs[0]["score"], pairs[2]["score"])


@pytest.fixture(scope="module")
def painter() -> TextToImage:
    task = conjure.load("starter/pictograms")
    assert isinstance(task, TextToImage)
    return task


def test_what_is_asked_for_is_drawn(painter: TextToImage) -> None:
    """Pictures of six names are nearest to those names' own pages, among 200 pages of the book."""
    names = ("red apple", "fire engine", "sunflower", "guitar", "octopus", "alarm clock")
    book, codec = painter.network.book, painter.codec
    assert book is not None and codec is not None
    _, pages = painter.words.encode(names, 8)
    rows = np.concatenate([pages.max(1), np.arange(0, len(book.table), 9)])
    latents = book.open(torch.from_numpy(rows)).unflatten(1, (16, 16)).permute(0, 3, 1, 2)
    known = np.stack([centred(p) for p in to_pixels(codec.decode(latents)).numpy()])
    pictures = painter.draw([f"a {name}" for name in names], painter.Options(), list(range(len(names))))
    found = nearest(np.stack([centred(p.rgb()) for p in pictures]), known)
    assert (found == np.arange(len(names))).sum() >= 5


def test_left_and_right_are_told_apart(painter: TextToImage) -> None:
    """A strawberry is red, a frog green: the halves of the picture change with the words."""
    options = painter.Options()
    prompts = ["a strawberry to the left of a frog face", "a strawberry to the right of a frog"]
    first, second = (p.rgb().astype(float) for p in painter.draw(prompts, options, [1, 1]))

    def redness(pixels: np.ndarray) -> float:
        return float((pixels[..., 0] - pixels[..., 1]).mean())

    assert redness(first[:, :64]) > redness(first[:, 64:])
    assert redness(second[:, :64]) < redness(second[:, 64:])


def test_the_same_picture_again_byte_for_byte(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        conjure.make("a bee", output=tmp_path / name, seed=5, steps=2)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_the_story_is_made_of_words() -> None:
    text = str(conjure.make("Once upon a time", to="text", seed=1, tokens=60).text)
    assert text.startswith("Once upon a time") and len(text) > 100
    words = re.findall(r"[A-Za-z']+", text)
    common = {"the", "and", "a", "of", "to", "was", "in", "he", "she", "it", "that", "his", "her", "said", "had", "i"}
    assert len(words) > 20 and sum(word.lower() in common for word in words) >= len(words) / 6


def test_chat_does_what_it_was_taught() -> None:
    """Two kinds of exercise that it does without fault, with words of its lists."""
    answers = [str(conjure.make(asked, task="chat", seed=0)).strip() for asked in (
        "Reverse this list: cup, monkey, camel", "Say exactly this: Ivy pulled the purple bell in the garden.")]
    assert answers == ["camel, monkey, cup", "Ivy pulled the purple bell in the garden."]


def test_code_fills_a_gap_and_leaves_the_rest_as_it_was() -> None:
    before, after = "def total(values):\n    result = 0\n    for value in values:\n        ", "\n    return result\n"
    made = str(conjure.make(before + after, task="complete", at="4:8", seed=0))
    assert made.startswith(before) and made.endswith(after) and len(made) > len(before + after)


def test_what_the_voice_says_the_ear_hears(tmp_path: Path) -> None:
    """Not every word: it is a small ear."""
    said = "the king was not in the house that morning"
    conjure.make(said, output=tmp_path / "said.wav", voice="rms", seed=1)
    heard = str(conjure.make(tmp_path / "said.wav", output=tmp_path / "heard.txt")).lower()
    assert len(set(said.split()) & set(heard.rstrip(".").split())) >= 4, heard


def test_short_sentences_are_translated_both_ways() -> None:
    assert str(conjure.make("Where is the library?", task="translate")).strip() == "¿Dónde está la biblioteca?"
    assert "house" in str(conjure.make("Esta es mi casa.", task="translate"))


def test_noise_is_taken_out_of_speech() -> None:
    spoken = conjure.make("a house at the edge of a wood", to="audio", voice="rms", seed=1)
    clean = spoken.mono()
    noise = np.random.default_rng(0).standard_normal(len(clean)).astype(np.float32)
    noisy = clean + noise * np.sqrt((clean**2).mean()) / 3
    better = conjure.make(Audio(noisy[None] / 4, spoken.rate), to="audio", task="enhance").mono()[: len(clean)] * 4
    assert ((better - clean) ** 2).mean() < 0.5 * ((noisy - clean) ** 2).mean()
