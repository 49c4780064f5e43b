"""text -> text, from a recipe's values to a saved model and its figures, on a text made here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Progress, Result
from conjure.core.seeds import rng
from conjure.data.packing import IGNORED
from conjure.media.text import Text
from conjure.models.lstm import LSTM
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.position import Rope
from conjure.tasks.text_evaluation import plain, words
from conjure.tasks.text_to_text import TextData, TextToText, TextToTextOptions
from conjure.tasks.training import prepare

WORDS = "the a red green old cat dog bird sees likes hears and but then .".split()
MODEL = TransformerConfig(vocab=280, dim=16, layers=1, heads=2, rope=Rope(dim=8))
DATA = TextData(sets=("tales",), length=16)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CONJURE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "tales"
    folder.mkdir(parents=True)
    for i in range(40):
        draw = rng(i)
        (folder / f"tale {i}.txt").write_text(" ".join(draw.choice(WORDS, draw.integers(3, 60))) + "\n")
    return tmp_path


@pytest.fixture
def task(places: Path) -> TextToText:
    return TextToText.create(MODEL, DATA, seed=1)


def test_the_same_seed_makes_the_same_task(task: TextToText) -> None:
    again, other = TextToText.create(MODEL, DATA, seed=1), TextToText.create(MODEL, DATA, seed=2)
    for name, tensor in task.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name])
    assert not torch.equal(task.network.embed.weight, other.network.embed.weight)
    assert torch.equal(task.batch([3, 9])["ids"], again.batch([3, 9])["ids"])
    assert not torch.equal(task.batch(range(9))["ids"], other.batch(range(9))["ids"])


def test_loss_is_the_cross_entropy_of_the_logits_over_the_targets(task: TextToText) -> None:
    batch = task.batch(range(60))
    assert "documents" in batch  # short texts share rows
    total, count = task.loss(batch)
    logp = task.logits(batch).log_softmax(-1)
    kept = batch["targets"] != IGNORED
    wanted = -logp[kept].gather(1, batch["targets"][kept][:, None]).sum()
    assert count == kept.sum() and 0 < count < batch["targets"].numel()
    torch.testing.assert_close(total, wanted)
    assert task.tokens(batch) == 60 * 16 and task.flops(batch) == 3 * task.network.flops(60, 16)


def test_training_examples_and_validation_documents_are_apart(task: TextToText) -> None:
    assert task.training is not None and task.validation is not None
    read = task.tokenizer.decode(task.training.ids.tolist()).split("\n")
    unread = task.tokenizer.decode(task.validation.ids.tolist()).split("\n")
    assert unread[:-1] and not set(unread[:-1]) & set(read)


def test_describe_marks_borders_and_what_carries_no_loss(task: TextToText) -> None:
    batch = task.batch(range(60))
    lines = task.describe(batch).split("\n")
    assert len(lines) == 60
    assert sum(line.count("[") for line in lines) == int((batch["targets"] == IGNORED).sum())
    assert sum(line.count("||") for line in lines) == int((batch["documents"].diff() != 0).sum())
    assert "<|end|>" in "".join(lines)


def test_evaluate(task: TextToText) -> None:
    figures = task.evaluate()
    assert next(iter(figures)) == "bits_per_byte"
    assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]))
    assert 0 < figures["bits_per_byte"] < figures["loss"] / math.log(2)
    assert set(task.evaluate(3)) == set(figures)


def test_the_vocabulary_of_characters_follows_from_the_text(places: Path) -> None:
    with pytest.raises(ConjureError) as caught:
        TextToText.create(MODEL, TextData(sets=("tales",), tokenizer="characters"), 0)
    size = 2 + len(set("".join(WORDS)) | {" ", "\n"})
    assert caught.value.hint == f"write model.vocab={size}"
    model = TransformerConfig(vocab=size, dim=8, layers=1, heads=1)
    made = TextToText.create(model, TextData(sets=("tales",), tokenizer="characters"), 0)
    assert made.evaluate(2)["bits_per_byte"] == pytest.approx(math.log2(size), rel=0.1)


def learnt(task: TextToText, steps: int = 60) -> TextToText:
    optimizer = torch.optim.AdamW(task.network.parameters(), lr=1e-2)
    for step in range(steps):
        total, count = task.loss(task.batch(range(8 * step, 8 * step + 8)))
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    return task


def test_saved_loaded_and_measured_again(task: TextToText, tmp_path: Path) -> None:
    before = task.evaluate()["bits_per_byte"]
    learnt(task)
    after = task.evaluate()["bits_per_byte"]
    assert after < before / 2
    task.save(tmp_path / "model")
    loaded = TextToText.load(tmp_path / "model")
    told: list[Progress] = []
    figures = loaded.evaluate_published([], told.append)  # type: ignore[arg-type]
    assert list(figures) == ["bits_per_byte", "token_perplexity"]
    fact = figures["bits_per_byte"]
    assert fact["low"] < fact["value"] < fact["high"] and "validation documents of tales" in fact["protocol"]
    assert fact["value"] == pytest.approx(after, rel=0.1)  # more context for each token, the same model
    assert told[-1].step == told[-1].total
    assert loaded.evaluate_published(["tales"])["bits_per_byte"]["value"] == pytest.approx(fact["value"])
    half = tmp_path / "half"
    loaded.save(half, dtype="bfloat16")
    rounded = TextToText.load(half).evaluate_published([])["bits_per_byte"]["value"]
    assert rounded == pytest.approx(fact["value"], rel=0.01)


def test_a_saved_average_takes_the_place_of_the_weights(task: TextToText, tmp_path: Path) -> None:
    other = Transformer(MODEL)
    task.save(tmp_path / "model", weights=dict(other.state_dict()))
    assert torch.equal(TextToText.load(tmp_path / "model").network.embed.weight, other.embed.weight)


def test_figures_of_a_file_and_of_wikitext(task: TextToText, places: Path, tmp_path: Path) -> None:
    text = " \n = The Cat = \n \n the cat , a <unk> bird , likes ten @-@ year dogs . \n"
    (places / "data" / "wikitext2_valid").mkdir()
    (places / "data" / "wikitext2_valid" / "valid.txt").write_text(text)
    (tmp_path / "own.txt").write_text(plain(text))
    wiki = task.evaluate_published(["wikitext2_valid"])
    file = task.evaluate_published([str(tmp_path / "own.txt")])
    assert wiki["bits_per_byte"]["value"] == pytest.approx(file["bits_per_byte"]["value"])
    nats = file["bits_per_byte"]["value"] * math.log(2) * len(plain(text).encode())
    assert wiki["perplexity"]["value"] == pytest.approx(math.exp(nats / words(text)), rel=1e-4)
    assert wiki["perplexity"]["n"] == words(text) == 4 + 4 + 13
    both = task.evaluate_published(["wikitext2_valid", str(tmp_path / "own.txt")])
    assert "own: bits_per_byte" in both and "wikitext2_valid: perplexity" in both
    with pytest.raises(ConjureError, match="does not exist"):
        task.evaluate_published(["gone.txt"])


def test_wikitext_as_ordinary_writing() -> None:
    assert plain("a ten @-@ year 1 @,@ 000 @.@ 5 ( x ) , cat 's ! \n") == "a ten-year 1,000.5 (x), cat's!\n"


def test_generate_streams_what_it_returns(task: TextToText) -> None:
    learnt(task, 5)
    options = TextToTextOptions(tokens=30)
    events = list(task.generate([Text("the cat")], options, [7]))
    *pieces, result = events
    assert isinstance(result, Result) and all(isinstance(piece, Delta) for piece in pieces)
    (text,) = result.media
    assert "".join(piece.text for piece in pieces) == text.text and text.text.startswith("the cat")
    several = list(task.generate([Text("the cat")], options, [6, 7]))[-1]
    assert [each.text for each in several.media][1] == text.text != several.media[0].text
    assert text.text == list(task.generate([Text("the cat")], options, [7]))[-1].media[0].text


def test_stop(task: TextToText) -> None:
    learnt(task)
    options = TextToTextOptions(tokens=60, stop=(" cat",))
    for seed in range(3):
        made = list(task.generate([Text("the dog sees")], options, [seed]))[-1].media[0].text
        assert " cat" not in made


@pytest.mark.parametrize("prompt", ["", " \n\t"])
def test_an_empty_prompt(task: TextToText, prompt: str) -> None:
    with pytest.raises(ConjureError, match="expected a prompt") as caught:
        list(task.generate([Text(prompt)], TextToTextOptions(), [0]))
    assert caught.value.hint


def test_preview(task: TextToText) -> None:
    assert task.preview(0)["continuations"].text.startswith("Once upon a time")
    assert task.preview(0)["continuations"] == task.preview(0)["continuations"] != task.preview(1)["continuations"]


@pytest.mark.parametrize(("kind", "size"), [("wordpiece", 48), ("unigram", 270)])
def test_other_tokenizers(places: Path, tmp_path: Path, kind: str, size: int) -> None:
    model = TransformerConfig(vocab=size, dim=8, layers=1, heads=1)
    made = TextToText.create(model, TextData(sets=("tales",), tokenizer=kind, length=16), 0)  # type: ignore[arg-type]
    assert made.tokenizer.size == size and made.tokenizer.end == 0
    assert made.evaluate(2)["loss"] == pytest.approx(math.log(size), rel=0.1)
    made.save(tmp_path / "model")
    text = "the red cat sees a dog."
    assert TextToText.load(tmp_path / "model").tokenizer.encode(text) == made.tokenizer.encode(text)
    assert made.tokenizer.decode(made.tokenizer.encode(text)) == text


def test_an_lstm_goes_the_same_way(places: Path, tmp_path: Path) -> None:
    recipe = places / "lstm.yaml"
    recipe.write_text(
        "task: text_to_text\nmodel: {kind: lstm, vocab: 280, dim: 16, layers: 1}\n"
        "data: {sets: [tales], length: 16}\ntrain: {steps: 1, batch: 1}\n"
    )
    read, made = prepare(recipe)
    assert isinstance(made, TextToText) and isinstance(made.network, LSTM)
    before = made.evaluate()["bits_per_byte"]
    learnt(made)
    after = made.evaluate()["bits_per_byte"]
    assert after < before / 1.5 and read.train.steps == 1
    made.save(tmp_path / "model")
    loaded = TextToText.load(tmp_path / "model")
    assert isinstance(loaded.network, LSTM) and loaded.network.config == made.network.config
    assert loaded.evaluate_published()["bits_per_byte"]["value"] == pytest.approx(after, rel=0.15)
    options = TextToTextOptions(tokens=20)
    texts = [list(loaded.generate([Text("the cat")], options, seeds))[-1].media[-1].text for seeds in ([7], [6, 7])]
    assert texts[0] == texts[1] and texts[0].startswith("the cat") and len(texts[0]) > 10
    assert TextToText.forecast(tmp_path / "model", options, 2)["memory_bytes"] == 4 * 2 * 2 * 16
