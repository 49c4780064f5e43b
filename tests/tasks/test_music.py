"""Four voices: examples and likelihood, composing, continuing, harmonising and filling in by one network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conjure.codecs.chorale_tokens import (
    HIDDEN,
    START,
    TOKENS,
    four_parts,
    lines,
    to_grid,
    to_music,
    to_tokens,
    transposed,
)  # fmt: skip
from conjure.codecs.music_words import place_of
from conjure.core.errors import ConjureError
from conjure.core.events import Progress, Result, Warn
from conjure.data.chorales import Chorales
from conjure.media.music import Music, Note, decode, encode
from conjure.media.text import Text
from conjure.metrics.voice_leading import faults
from conjure.models.four_voices import BEATS_LEFT, SIZES, FourVoicesConfig
from conjure.models.transformer import TransformerConfig
from conjure.nn.position import Rope
from conjure.tasks import chorale_figures as figures_of
from conjure.tasks.chorale_figures import accuracy, in_every_key, likelihood
from conjure.tasks.chorale_keys import by_key, likeliest_key, mixed
from conjure.tasks.chorale_rows import facts, padded, row
from conjure.tasks.chorale_writing import Drawing, write
from conjure.tasks.music import (
    ChoraleData,
    Compose,
    ComposeOptions,
    Continue,
    ContinueOptions,
    Harmonise,
    HarmoniseOptions,
    Infill,
    InfillOptions,
    common_key,
)  # fmt: skip
from tests.data.hymns import hymn, write_hymns

STACK = TransformerConfig(vocab=0, dim=32, layers=2, heads=2, qk_norm=True, rope=Rope(dim=16))
MODEL = FourVoicesConfig(transformer=STACK, hidden=32, depth=1)


@pytest.fixture(scope="module", autouse=True)
def hymns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("data")
    write_hymns(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONJURE_DATA", str(folder))
        yield


@pytest.fixture(scope="module")
def task(hymns: None) -> Compose:
    made = Compose.create(MODEL, ChoraleData(steps=32), seed=3)
    made.network.eval()
    return made


@pytest.fixture(scope="module")
def folder(task: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model saved, after its weights were stirred: a new one thinks all notes equally likely."""
    place = tmp_path_factory.mktemp("model")
    stirred = {n: w + 0.3 * torch.randn(w.shape, generator=torch.Generator().manual_seed(w.numel()))
               for n, w in task.network.state_dict().items()}  # fmt: skip
    task.save(place, weights=stirred)
    return place


def made(task: Compose, inputs: list[object], options: object, seeds: list[int]) -> list[Music]:
    *_, result = task.generate(inputs, options, seeds)
    assert isinstance(result, Result)
    return list(result.media)  # type: ignore[arg-type]


def piece(beats: int = 12) -> Music:
    return to_music(np.array(hymn(1, beats), np.int16), 66.0)


def test_examples_depend_on_their_index_alone(task: Compose) -> None:
    together, alone = task.batch(range(9)), task.batch([5])
    T = alone["notes"].shape[1]
    for name in ("notes", "before", "told", "facts", "counted"):
        assert torch.equal(together[name][5, :T], alone[name][0])
    assert not together["counted"][5, T:].any() and together["scored"][5] == alone["scored"][0]
    assert int(together["notes"].max()) < TOKENS and int(together["before"].max()) <= START
    followed = together["before"][:, 1:] == together["notes"][:, :-1]
    hidden = together["before"][:, 1:] == HIDDEN
    counted = together["counted"][:, 1:, None].expand_as(followed)
    assert (followed | hidden)[counted].all() and 0 < hidden[counted].float().mean() < 0.1
    assert "9 crops" in task.describe(together) and task.tokens(together) == together["notes"].numel()


@torch.no_grad()
def test_the_loss_counts_what_was_not_told(task: Compose) -> None:
    batch = task.batch(range(16))
    total, count = task.loss(batch)
    asked = (batch["told"] == HIDDEN) & batch["counted"][..., None]
    every = F.cross_entropy(task.logits(batch).movedim(-1, 1), batch["notes"], reduction="none")
    assert int(count) == int(asked.sum()) and total.item() == pytest.approx(float(every[asked].sum()), rel=1e-5)
    single = [task.loss(task.batch([i])) for i in range(16)]
    assert total.item() == pytest.approx(sum(each.item() for each, _ in single), rel=1e-4)
    assert task.flops(batch) == 3 * task.network.flops(*batch["notes"].shape[:2], scored=True)


def test_a_new_network_knows_nothing(task: Compose) -> None:
    figures = task.evaluate()
    assert figures["nats_per_step"] == pytest.approx(4 * math.log(TOKENS), rel=0.05)
    assert figures["nats_per_note_16th"] == pytest.approx(math.log(TOKENS), rel=0.05)
    assert set(task.evaluate(1)) == set(figures)


def test_likelihood_in_stretches_sees_the_past(folder: Path) -> None:
    task = Compose.load(folder)
    in_parts, at_once = (likelihood(task.network, Chorales("valid"), 1, size) for size in (32, 512))
    for parts, once in zip(in_parts, at_once, strict=True):
        assert len(parts) == len(once) > 32 and parts[:32] == pytest.approx(once[:32], rel=1e-4)
        assert parts.mean() == pytest.approx(once.mean(), rel=0.2)
    quarters = likelihood(task.network, Chorales("valid"), 4, 32)
    assert [len(each) for each in quarters] == [9, 12, 15]


def test_published_figures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_of, "PLAIN", [19])
    monkeypatch.setattr(figures_of, "ASKED", [7])
    monkeypatch.setattr(figures_of, "BARS", 1)
    task, told = Compose.load(folder), []
    found = task.evaluate_published((), told.append)
    figures = task.evaluate()
    assert found["nats_per_step"]["value"] == pytest.approx(figures["nats_per_step"], rel=1e-6)
    assert found["nats_per_note_16th"]["value"] == pytest.approx(figures["nats_per_note_16th"], rel=1e-6)
    assert found["nats_per_step_after_first"]["value"] != found["nats_per_step"]["value"]
    assert found["nats_per_step"]["low"] < found["nats_per_step"]["value"] < found["nats_per_step"]["high"]
    assert 0 <= found["frame_accuracy"]["value"] <= 1 and found["nats_per_step"]["n"] == 3
    bach = [faults(np.array(hymn(100 + k, 9 + 3 * k))) for k in range(3)]
    expected = 100 * np.mean([each.parallel_fifths / each.chords for each in bach])
    assert found["parallel_fifths_bach"]["value"] == pytest.approx(expected) and "crossing_composed" in found
    assert found["key_kept"]["n"] == 1 and found["key_by_last_bass_bach"]["n"] == 3
    assert found["ends_on_tonic_bach"]["value"] == 1.0  # every hymn ends with its C major, moved
    assert all(isinstance(event, Progress) for event in told) and told


def test_accuracy_of_one_who_knows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, source = Compose.load(folder), Chorales("valid")
    every = in_every_key(task.network, source, 4, 32)
    monkeypatch.setattr(figures_of, "likeliest", lambda network, batch: to_grid(batch["notes"].numpy()))
    assert accuracy(task.network, source, every) == [1.0] * 3
    monkeypatch.setattr(figures_of, "likeliest", lambda network, batch: np.full(batch["notes"].shape, -1))
    assert accuracy(task.network, source, every) == [0.0] * 3


def test_pieces_are_their_seeds_own(folder: Path) -> None:
    task, options = Compose.load(folder), ComposeOptions(bars=2, temperature=1.0)
    *events, result = task.generate([Text("calm, in G minor, wobbly")], options, [4, 5])
    assert isinstance(result, Result) and [e.step for e in events if isinstance(e, Progress)] == list(range(1, 37))
    assert ["wobbly" in e.text for e in events if isinstance(e, Warn)] == [True]
    first, second = result.media
    assert isinstance(first, Music) and first.tempo == 60.0 and first.digest() != second.digest()
    assert decode(encode(first), "x").digest() == first.digest() and isinstance(second, Music)
    (alone,) = made(task, [Text("calm, in G minor")], ComposeOptions(bars=2, temperature=1.0, tempo=100), [5])
    assert alone.notes == second.notes and alone.tempo == 100.0
    assert len(result.facts["faults"]) == len(result.facts["keys"]) == 2


def test_rules_leave_no_fault_that_can_be_avoided(folder: Path) -> None:
    task = Compose.load(folder)
    free, ruled = (
        [faults(four_parts(each)).total for each in made(task, [Text("calm")], options, list(range(3)))]
        for options in (ComposeOptions(bars=2, rules=rules, temperature=1.5, top_p=1.0) for rules in (False, True))
    )
    assert sum(ruled) < 0.2 * sum(free)


def test_what_was_there_stays(folder: Path) -> None:
    given = piece()
    (longer,) = made(Continue.load(folder), [given], ContinueOptions(bars=1), [1])
    grid_TV = lines(given)
    more_TV = four_parts(longer)
    assert np.array_equal(more_TV[: len(grid_TV)], four_parts(given)) and len(more_TV) <= len(grid_TV) + 16
    assert longer.tempo == 66.0
    (filled,) = made(Infill.load(folder), [given], InfillOptions(start=2, bars=1, voices="Alto, tenor"), [1])
    changed_TV = four_parts(filled) != four_parts(given)
    assert changed_TV[16:32, 1:3].any() and not changed_TV[:, [0, 3]].any()
    assert not changed_TV[:16].any() and not changed_TV[32:].any()
    (whole,) = made(Infill.load(folder), [given], InfillOptions(start=3, bars=64), [1])
    assert whole.digest() != given.digest()


def test_a_melody_is_harmonised_where_it_lies(folder: Path) -> None:
    line = Music(notes=tuple(Note(480 * k, 480, 40 + k) for k in range(7)), tempo=50.0)  # far below a soprano
    task = Harmonise.load(folder)
    *events, result = task.generate([line], HarmoniseOptions(key="C major"), [1, 2])
    assert isinstance(result, Result)
    assert ["20 semitones higher" in e.text for e in events if isinstance(e, Warn)] == [True]
    for each in result.media:
        assert isinstance(each, Music) and each.voices[0] == "soprano" and each.tempo == 50.0
        soprano = [(note.start, note.length, note.pitch) for note in each.notes if note.voice == 0]
        assert soprano == [(480 * k, 480, 40 + k) for k in range(7)]
        assert len({note.voice for note in each.notes}) > 1
    (low,) = made(task, [line], HarmoniseOptions(voice="bass"), [1])
    assert [note.pitch for note in low.notes if note.voice == 3] == list(range(40, 47))


def test_stretches_join(folder: Path) -> None:
    """A piece longer than the window is written in several; told notes stay, and the seeds still decide."""
    task = Compose.load(folder)
    told_TV = to_tokens(np.array(hymn(2, 15), np.int16))
    told_TV[10:50, 1:] = HIDDEN
    facts_BTF = np.stack([facts(60, 0)] * 2)
    *_, (done, grids_BTV) = write(task.network, told_TV, facts_BTF, [7, 8], Drawing(window=32), [0, 0])
    assert done == 60 and grids_BTV.shape == (2, 60, 4)
    known = told_TV != HIDDEN
    assert np.array_equal(grids_BTV[0][known], to_grid(told_TV)[known])
    *_, (_, alone_BTV) = write(task.network, told_TV, facts_BTF[:1], [8], Drawing(window=32), [0])
    assert np.array_equal(alone_BTV[0], grids_BTV[1]) and not np.array_equal(grids_BTV[0], grids_BTV[1])
    whole_TV = to_tokens(np.array(hymn(2, 5), np.int16))
    assert list(write(task.network, whole_TV, facts_BTF[:1, :20], [1], Drawing(), [0])) == []


def test_drawing_follows_the_network(folder: Path) -> None:
    """The likeliest notes step by step are those of one pass over the whole piece."""
    task = Compose.load(folder)
    told_TV = np.full((20, 4), HIDDEN)
    facts_BTF = facts(20, 4, motion=1)[None]
    *_, (_, grids_BTV) = write(task.network, told_TV, facts_BTF, [1], Drawing(temperature=0), [4])
    tokens_TV = torch.from_numpy(to_tokens(grids_BTV[0]))[None]
    before_TV = torch.cat([torch.full((1, 1, 4), START), tokens_TV[:, :-1]], 1)
    batch = {"notes": tokens_TV, "before": before_TV, "told": torch.full_like(tokens_TV, HIDDEN),
             "facts": torch.from_numpy(facts_BTF),
             "counted": torch.ones(1, 20, dtype=torch.bool), "scored": torch.tensor([False])}  # fmt: skip
    assert torch.equal(task.logits(batch).argmax(-1), tokens_TV)


def test_facts() -> None:
    told_TF = facts(20, 12 + 7, start=8, rest=4)
    assert told_TF[:, 0].tolist() == [(8 + t) % 16 for t in range(20)] and set(told_TF[:, 2]) == {1}
    assert told_TF[[0, 3, 4, 19], 1].tolist() == [5, 5, 4, 1] and set(told_TF[:, 3]) == {10}  # two below A minor
    assert set(told_TF[:, 4]) == {3} and not told_TF[:, 5].any() and set(facts(2, 3)[:, 2]) == {0}
    quarters_TF = facts(50, 0, stride=4, rest=None)
    assert quarters_TF[:5, 0].tolist() == [0, 4, 8, 12, 0] and set(quarters_TF[:, 1]) == {BEATS_LEFT}
    assert facts(500, 0)[0, 1] == BEATS_LEFT - 1 and facts(500, 0)[-1, 1] == 0


def test_a_key_that_nobody_told_is_paid_for(folder: Path) -> None:
    """p(x) = sum over keys of p(x | key) / 24, step by step, and never more than log 24 above the best key."""
    nats_KT = np.array([[1.0, 2.0], [3.0, 0.5], [np.inf, 1.0]])
    first, second = mixed(nats_KT)
    assert first == pytest.approx(-math.log((math.exp(-1) + math.exp(-3)) / 3))
    assert first + second == pytest.approx(-math.log((math.exp(-3) + math.exp(-3.5)) / 3))
    task, source = Compose.load(folder), Chorales("valid")
    each_KT = by_key(task.network, source.piece(0, 4), 32)
    (nats_T, *_) = likelihood(task.network, source, 4, 32, limit=1)
    assert each_KT.shape == (24, 9) and nats_T.sum() == pytest.approx(-math.log(np.exp(-each_KT.sum(1)).mean()))
    assert each_KT.sum(1).min() <= nats_T.sum() <= each_KT.sum(1).min() + math.log(24)
    piece_TV = source.pieces[0]
    whole_KT = by_key(task.network, source.piece(0), 64)
    assert likeliest_key(task.network, piece_TV, 64) == whole_KT.sum(1).argmin()
    assert likeliest_key(task.network, np.full((3, 4), -1), 64) == 0


@torch.no_grad()
def test_a_piece_and_its_transposition_are_one(folder: Path) -> None:
    """Notes in the normal position do not know the key, but for the fact that tells it."""
    task = Compose.load(folder)
    example = Chorales("valid").piece(1)
    key = example.key // 12 * 12 + (example.key + 2) % 12
    higher = replace(example, grid_TV=transposed(example.grid_TV, 2), key=key)
    one, other = (padded([row(each, (True, True))]) for each in (example, higher))
    assert torch.equal(one["notes"], other["notes"]) and torch.equal(one["before"], other["before"])
    assert not torch.equal(one["facts"], other["facts"])
    same = other | {"facts": one["facts"]}
    assert torch.equal(task.logits(one), task.logits(same))
    sounding_TV = transposed(to_grid(other["notes"][0].numpy()), place_of(higher.key))
    assert np.array_equal(sounding_TV, higher.grid_TV)


def test_keys_differ_only_by_where_they_lie(folder: Path) -> None:
    """A network that forgot which key it was told writes the same piece, transposed; ranges go by what sounds."""
    task = Compose.load(folder)
    start = sum(SIZES[:3])
    task.network.facts.weight[start : start + 12] = 0
    free = ComposeOptions(bars=2, rules=False)
    c, d = (four_parts(made(task, [Text(f"in {key}")], free, [3])[0]) for key in ("C major", "D major"))
    assert np.array_equal(transposed(c, 2), d)
    (ruled,) = made(task, [Text("in F# major")], ComposeOptions(bars=2), [3])
    last_V = four_parts(ruled)[-1]  # F sharp in the bass, and its triad above
    assert faults(four_parts(ruled)).range == 0 and last_V[3] % 12 == 6 and {*last_V % 12} <= {6, 10, 1}
    assert len({common_key(seed) for seed in range(60)}) > 5 and common_key(3) == common_key(3)


def test_what_is_given_keeps_its_place_in_every_key(folder: Path) -> None:
    """Told notes come back at their own pitches, whatever key they are found or said to be in."""
    line = Music(notes=tuple(Note(480 * k, 480, pitch) for k, pitch in enumerate((71, 73, 71))))
    for key in ("", "Eb minor"):
        (whole,) = made(Harmonise.load(folder), [line], HarmoniseOptions(key=key), [1])
        assert [note.pitch for note in whole.notes if note.voice == 0] == [71, 73, 71]


def test_what_cannot_be(folder: Path) -> None:
    given = piece()
    for kind, options, message in (
        (Infill, InfillOptions(start=9), "--start"),
        (Infill, InfillOptions(voices="flute"), "--voices"),
        (Harmonise, HarmoniseOptions(key="green"), "--key"),
        (Harmonise, HarmoniseOptions(key="calm"), "--key"),
    ):
        with pytest.raises(ConjureError, match=message):
            list(kind.load(folder).generate([given], options, [1]))
    with pytest.raises(ConjureError, match="one piece of music"):
        list(Continue.load(folder).generate([given, given], ContinueOptions(), [1]))
    with pytest.raises(ConjureError, match="with notes"):
        list(Harmonise.load(folder).generate([Music(notes=())], HarmoniseOptions(), [1]))
