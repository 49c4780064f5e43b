"""English and Spanish: examples and loss, training that learns, sentences in a long text, and its figures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Event, Result, Warn
from conjure.data import sentence_pairs
from conjure.media.text import Text
from conjure.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from conjure.models.transformer import TransformerConfig
from conjure.nn.cross_entropy import IGNORED
from conjure.nn.position import Rope
from conjure.tasks import translation_figures as figures
from conjure.tasks.translation import (
    MARKS,
    TWICE,
    Translation,
    TranslationData,
    TranslationOptions,
    with_end,
    without_end,
)
from conjure.train.loop import train
from conjure.train.settings import Training
from tests.data.phrasebook import pairs, write_pairs

STACK = {"vocab": 340, "dim": 32, "heads": 2, "hidden": 64, "layers": 1, "qk_norm": True, "rope": Rope(dim=16)}
MODEL = EncoderDecoderConfig(
    encoder=TransformerConfig(**STACK, causal=False), decoder=TransformerConfig(**STACK, cross=True)
)
DATA = TranslationData(length=24, block=8)


@pytest.fixture(scope="module", autouse=True)
def _phrasebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("data")
    write_pairs(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONJURE_DATA", str(folder))
        patch.setattr(sentence_pairs, "VALID", 0.1)
        patch.setattr(sentence_pairs, "TEST", 0.1)
        sentence_pairs.groups.cache_clear()
        yield
        sentence_pairs.groups.cache_clear()


@pytest.fixture(scope="module")
def folder(_phrasebook: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt the phrases."""
    place = tmp_path_factory.mktemp("model")
    task = Translation.create(MODEL, DATA, seed=1)
    config = Training(steps=90, batch=32, optimizer="muon", lr=0.02, adam_lr=0.01, warmup=5, cooldown=45,
                      schedule="wsd", threads=1, log_every=100, checkpoint_minutes=0)  # fmt: skip
    assert train(task, config, place, seed=1)["loss"] < 0.8
    return place


@pytest.fixture(scope="module")
def task(folder: Path) -> Translation:
    return Translation.load(folder)


@pytest.fixture(scope="module")
def fresh(_phrasebook: None) -> Translation:
    return Translation.create(MODEL, DATA, seed=1)


# -- examples and loss ------------------------------------------------------------------------------------------------


def test_both_ways_are_taught_with_the_mark_of_the_target_in_front(fresh: Translation) -> None:
    batch = fresh.batch(range(fresh.drill.epoch))
    read = [fresh.tokenizer.decode(row, skip_special=False).split("<|end|>")[0] for row in batch["source"].tolist()]
    wrote = [fresh.tokenizer.decode([i for i in row if i != IGNORED]) for row in batch["targets"].tolist()]
    taught = {pair for group in sentence_pairs.groups("train") for pair in group}
    both = {(f"{MARKS[1]}{en}", es) for en, es in taught} | {(f"{MARKS[0]}{es}", en) for en, es in taught}
    assert set(zip(read, wrote)) == both and len(taught) < len(pairs())
    assert (batch["ids"][:, 0] == fresh.end).all()
    real = batch["targets"] != IGNORED
    assert (batch["ids"][:, 1:][real[:, 1:]] == batch["targets"][:, :-1][real[:, 1:]]).all()
    assert (batch["source"][~batch["mask"]] == fresh.end).all() and "->" in fresh.describe(batch)


def test_rows_of_one_length_have_no_mask(fresh: Translation) -> None:
    assert "mask" not in fresh.batch([3]) and "mask" in fresh.batch(range(fresh.drill.epoch))


def test_smoothed_loss_is_that_of_the_closed_form(fresh: Translation) -> None:
    batch = fresh.batch(range(40))
    network = EncoderDecoder(MODEL)
    for n, parameter in enumerate(network.parameters()):
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(n))
    called = {"mask_BM": batch.get("mask"), "targets": batch["targets"]}
    logits = network(batch["source"], batch["ids"], mask_BM=batch.get("mask")).flatten(0, 1)
    for smoothing in (0.0, 0.3):
        wanted = F.cross_entropy(logits, batch["targets"].flatten(), ignore_index=IGNORED, label_smoothing=smoothing,
                                 reduction="sum")  # fmt: skip
        weights = list(network.parameters())
        ours = network(batch["source"], batch["ids"], **called, smoothing=smoothing)
        assert ours.item() == pytest.approx(wanted.item(), rel=1e-5)
        for a, b in zip(torch.autograd.grad(ours, weights), torch.autograd.grad(wanted, weights, retain_graph=True)):
            assert (a - b).abs().max() <= 1e-4 * b.abs().max().clamp_min(1)


def test_work_is_counted_without_a_head_of_the_encoder(fresh: Translation) -> None:
    batch = fresh.batch([0])
    matrices = sum(p.numel() for name, p in fresh.network.named_parameters() if p.dim() == 2 and "embed" not in name)
    head = MODEL.decoder.vocab * MODEL.decoder.dim
    M, T = batch["source"].shape[1], batch["ids"].shape[1]
    in_decoder = sum(p.numel() for p in fresh.network.decoder.blocks.parameters() if p.dim() == 2)
    products = 6 * (M * (matrices - in_decoder) + T * (in_decoder + head))
    assert products < fresh.flops(batch) < 1.2 * products


# -- files ------------------------------------------------------------------------------------------------------------


def test_the_shared_embedding_is_saved_once(task: Translation, folder: Path) -> None:
    from safetensors import safe_open

    with safe_open(str(folder / "model.safetensors"), framework="pt") as stored:
        names = set(stored.keys())
    assert TWICE not in names and "decoder.embed.weight" in names
    assert task.network.encoder.embed is task.network.decoder.embed
    sizes = [sum(p.numel() for p in network.parameters()) for network in (task.network, EncoderDecoder(MODEL))]
    assert sizes[0] == sizes[1]


def test_weights_that_are_given_are_saved(fresh: Translation, tmp_path: Path) -> None:
    given = {name: torch.full_like(tensor, 0.5) for name, tensor in fresh.network.named_parameters()}
    fresh.save(tmp_path, weights=given, dtype="bfloat16")
    assert all((p == 0.5).all() for p in Translation.load(tmp_path).network.parameters())


# -- use --------------------------------------------------------------------------------------------------------------


def run(task: Translation, text: str, seeds: tuple[int, ...] = (1,), **options: Any) -> tuple[list[Event], list[str]]:
    events = list(task.generate([Text(text)], TranslationOptions(**options), list(seeds)))
    result = events[-1]
    assert isinstance(result, Result)
    return events, [str(each) for each in result.media]


def test_it_translates_both_ways_alone_and_among_others(task: Translation) -> None:
    sample = [pair for group in sentence_pairs.groups("train") for pair in group][::6]
    for into, language in ((1, "es"), (0, "en")):
        found = task.translated([pair[1 - into] for pair in sample], language)
        assert sum(a == pair[into] for a, pair in zip(found, sample)) >= 0.8 * len(sample)
        assert found[3] == task.translated([sample[3][1 - into]], language)[0]
    assert task.translated([], "es") == []


def test_a_search_finds_texts_that_are_as_likely_or_more(task: Translation) -> None:
    texts = [pair[0] for pair in pairs()[:12]]
    likelihoods = []
    for beams in (1, 4):
        wrote = task.translated(texts, "es", TranslationOptions(beams=beams))
        batch = task._laid([((task._read(a), task._read(b)), 1) for a, b in zip(texts, wrote)])
        logits = task.logits(batch).movedim(-1, 1)
        nats = F.cross_entropy(logits, batch["targets"], ignore_index=IGNORED, reduction="none")
        likelihoods.append(-nats.sum(1) / (batch["targets"] != IGNORED).sum(1))
    assert float((likelihoods[1] - likelihoods[0]).mean()) >= -1e-6


def test_a_text_goes_sentence_by_sentence_and_keeps_its_paragraphs(task: Translation) -> None:
    events, (made,) = run(task, "Tom sees the dog.  Ana sees the book.\n\n\n  Luis sees the tree.\n", source="en")
    assert "".join(event.text for event in events if isinstance(event, Delta)) == made
    first, second, third = (task.translated([text], "es", TranslationOptions())[0]
                            for text in ("Tom sees the dog.", "Ana sees the book.", "Luis sees the tree."))  # fmt: skip
    assert made == f"{first}  {second}\n\n\n  {third}\n"
    assert isinstance(events[-1], Result)
    assert (events[-1].facts["source"], events[-1].facts["target"], events[-1].facts["sentences"]) == ("en", "es", 3)


def test_the_language_is_found_and_the_other_one_written(task: Translation) -> None:
    for text, target in (("Tom sees the dog.", "es"), ("¿Dónde está: casa de Tom?", "en")):
        assert run(task, text)[1] == task.translated([text], target, TranslationOptions())


def test_a_text_that_is_in_the_language_already_is_given_back(task: Translation) -> None:
    events, made = run(task, "Where is the house?", (1, 2), target="English")
    assert made == ["Where is the house?"] * 2
    assert any(isinstance(event, Warn) and "seems to be in English already" in event.text for event in events)


def test_words_are_drawn_by_the_seed(task: Translation) -> None:
    _, first = run(task, "Tom sees the dog.", (1, 2, 3, 4), beams=1, temperature=5.0)
    assert len(set(first)) > 1 and first == run(task, "Tom sees the dog.", (1, 2, 3, 4), beams=1, temperature=5.0)[1]


def test_an_instruction_names_the_language(task: Translation) -> None:
    *_, result = task.generate([Text("Tom sees the dog."), Text("translate to Spanish")], TranslationOptions(), [1])
    assert isinstance(result, Result) and result.facts["target"] == "es"
    with pytest.raises(ConjureError, match="does not know the language 'French': it translates between English"):
        list(task.generate([Text("Tom sees."), Text("translate into French")], TranslationOptions(), [1]))
    with pytest.raises(ConjureError, match="got an empty one"):
        run(task, " \n")


def test_marks_in_a_text_are_text_and_a_long_word_is_cut(task: Translation) -> None:
    special = {task.end, *task.marks.values()}
    assert not special & set(task._read("<|es|> and <|end|>"))
    events, (made,) = run(task, f"Tom sees {'x' * 400} house. 😀 你好", source="en")
    assert made.strip() and not any(mark in made for mark in MARKS)
    assert isinstance(events[-1], Result)


def test_lines_without_an_end_are_read_as_sentences(task: Translation) -> None:
    assert with_end("Dear Mary,") == ("Dear Mary.", ",") and with_end("Tom") == ("Tom.", "")
    for whole in ("No.", "Why?", "(so)", "1, 2 …", "--", "¡Ay!"):
        assert with_end(whole) == (whole, None)
    assert without_end("Querida María.", ",") == "Querida María," and without_end("No.", None) == "No."
    (wanted,) = task.translated(["Tom sees the dog."], "es", TranslationOptions())
    assert run(task, "Tom sees the dog;", source="en")[1] == [wanted.removesuffix(".") + ";"]


# -- figures ----------------------------------------------------------------------------------------------------------


def test_published_figures(task: Translation) -> None:
    found = task.evaluate_published()
    ways = [f"{kind}_{way}" for way in ("es_en", "en_es") for kind in ("bleu", "chrf")]
    assert {*ways, "bleu_es_en_greedy", "bleu_en_es_greedy", "language_found"} <= set(found)
    for name in ways:
        assert 0 <= found[name]["low"] <= found[name]["high"] <= 100 and found[name]["n"] > 5
    assert found["bleu_en_es"]["value"] > 20
    assert "sacrebleu" in found["bleu_es_en"]["protocol"] and "nc:6" in found["chrf_es_en"]["protocol"]


def test_neighbours_differ_by_a_word() -> None:
    near = figures.neighbours(iter(["Tom likes the dog.", "No."]))
    for text in ("Tom likes the cat", "tom likes dog", "Tom really likes the dog!", "no"):
        assert figures.keys(text) & near
    for text in ("Tom sees the cat", "The dog slept", "Yes."):
        assert not figures.keys(text) & near


def test_each_sentence_is_asked_once_with_its_first_translation() -> None:
    several = [("Go.", "Ve."), ("Go.", "Vete."), ("Leave.", "Vete.")]
    assert figures.once(several, 0) == [("Go.", "Ve."), ("Leave.", "Vete.")]
    assert figures.once(several, 1) == [("Go.", "Ve."), ("Go.", "Vete.")]


def test_evaluation_is_the_plain_loss_of_the_validation_part(task: Translation) -> None:
    held = [pair for group in sentence_pairs.groups("valid") for pair in group]
    total, count = 0.0, 0
    for pair in held:
        for into in (0, 1):
            batch = task._laid([((task._read(pair[0]), task._read(pair[1])), into)])
            total += float(F.cross_entropy(task.logits(batch)[0], batch["targets"][0], reduction="sum"))
            count += batch["targets"].numel()
    found = task.evaluate()
    assert found["loss"] == pytest.approx(total / count, rel=1e-4)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert task.evaluate(4)["loss"] != found["loss"]
