from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from conjure.core.errors import ConjureError
from conjure.data import sentence_pairs
from conjure.data.sentence_pairs import Drill, grouped, groups, part_of, plain
from tests.data.phrasebook import pairs, write_pairs


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path))
    groups.cache_clear()
    yield tmp_path
    groups.cache_clear()


@pytest.mark.parametrize(
    ("one", "other"),
    [("I can't go.", "i cannot GO"), ("You won't, Tom!", "you will not Tom"), ("¿Qué tú?", "que tu"),
     ("He’s here", "He's here."), ("Año", "ano")],
)  # fmt: skip
def test_sentences_that_read_alike_are_equal(one: str, other: str) -> None:
    assert plain(one) == plain(other)
    assert plain("Tom came.") != plain("Tom comes.")


def test_groups_share_no_sentence_in_either_language() -> None:
    found = grouped([("Go.", "Ve."), ("Go!", "Vete."), ("Leave.", "vete"), ("Hi.", "Hola."), ("Hi.", "Hola."),
                     ("Vete.", "Go.")])  # fmt: skip
    assert found == [[("Go.", "Ve."), ("Go!", "Vete."), ("Leave.", "vete")], [("Hi.", "Hola.")], [("Vete.", "Go.")]]


def test_no_held_out_sentence_is_taught(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pairs(data)
    monkeypatch.setattr(sentence_pairs, "VALID", 0.2)
    monkeypatch.setattr(sentence_pairs, "TEST", 0.2)
    parts = {}
    for part in ("train", "valid", "test"):
        groups.cache_clear()
        parts[part] = [pair for group in groups(part) for pair in group]
    assert all(len(found) > 8 for found in parts.values())
    assert sorted(pair for found in parts.values() for pair in found) == sorted(pairs())
    for side in (0, 1):
        counted = Counter(sentence for found in parts.values() for sentence in {plain(pair[side]) for pair in found})
        assert set(counted.values()) == {1}


def test_a_group_stays_in_its_part_when_others_come() -> None:
    own = [part_of(group) for group in grouped(pairs()[:40])]
    assert own == [part_of(group) for group in grouped(pairs())][:40]


def test_a_file_of_another_kind_is_refused(data: Path) -> None:
    (data / "tatoeba").mkdir()
    (data / "tatoeba" / "spa-eng.tsv").write_text("Go.\tVe.\nno tab here\n")
    with pytest.raises(ConjureError, match="expected an English and a Spanish sentence in a line, got 'no tab here'"):
        groups("train")


def test_an_epoch_has_every_example_and_blocks_are_of_one_length() -> None:
    lengths = [(3 + n % 5, 2 + n % 7) for n in range(203)]
    drill = Drill(lengths, 8, seed=1)
    assert drill.epoch == 208
    first = [drill.example(index) for index in range(208)]
    assert set(first) == set(range(203)) and max(Counter(first).values()) == 2
    mixed = sum(len({lengths[n][0] for n in first[at : at + 8]}) > 1 for at in range(0, 208, 8))
    assert mixed <= 4  # one at each border between the five lengths
    second = [drill.example(index) for index in range(208, 416)]
    assert first != second and set(second) == set(range(203))
    starts = [lengths[first[at]][0] for at in range(0, 208, 8)]
    assert starts != sorted(starts)


def test_an_example_depends_on_its_index_and_the_seed_alone() -> None:
    lengths = [(n % 3, n % 4) for n in range(30)]
    drill, again, other = Drill(lengths, 4, 1), Drill(lengths, 4, 1), Drill(lengths, 4, 2)
    order = [drill.example(n) for n in range(200)]
    assert [again.example(n) for n in reversed(range(200))][::-1] == order
    assert [other.example(n) for n in range(200)] != order
