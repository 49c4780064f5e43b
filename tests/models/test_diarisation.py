"""Who speaks when: clustering against a loop over all vectors, paths against all of them, long sound as short."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from conjure.codecs.voice_activity import Floats
from conjure.models.diarisation import (
    Diarising,
    Turn,
    Windows,
    _likeliest,
    clustered,
    joined,
    linked,
    looked_at,
    turns,
    windows,
)

RATE = 1000
SETTINGS = Diarising()


def unit(seed: int, groups: int = 3, each: int = 6) -> np.ndarray:
    """Vectors around some directions, in another order for each seed."""
    draw = np.random.default_rng(seed)
    made = np.eye(8)[np.arange(groups * each) % groups] + 0.25 * draw.standard_normal((groups * each, 8))
    made = made[draw.permutation(len(made))]
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def slowly(vectors: np.ndarray, alike: float, count: int) -> set[frozenset[int]]:
    """Average linkage as it is defined."""
    clusters = [frozenset([n]) for n in range(len(vectors))]
    while len(clusters) > max(1, count):
        pairs = {(a, b): np.mean([vectors[i] @ vectors[j] for i in a for j in b])
                 for a, b in itertools.combinations(clusters, 2)}  # fmt: skip
        one, other = max(pairs, key=pairs.__getitem__)
        if not count and pairs[one, other] < alike:
            break
        clusters = [each for each in clusters if each not in (one, other)] + [one | other]
    return set(clusters)


@pytest.mark.parametrize(("alike", "count"), [(0.5, 0), (0.8, 0), (0.99, 0), (-1.0, 0), (0.5, 2), (0.5, 5)])
def test_clusters_are_those_of_a_loop(alike: float, count: int) -> None:
    for seed in range(3):
        vectors = unit(seed)
        labels = linked(vectors, np.ones(len(vectors)), alike, count)
        found = {frozenset(np.flatnonzero(labels == label).tolist()) for label in range(labels.max() + 1)}
        assert found == slowly(vectors, alike, count)


def as_windows(vectors: np.ndarray, start: int = 0) -> Windows:
    at = np.array([(n * 750, n * 750 + 1500) for n in range(len(vectors))]) + start
    return Windows(at, vectors, ((int(at[0, 0]), int(at[-1, 1])),), np.ones(0))


def test_stretches_are_clustered_as_the_whole() -> None:
    vectors = unit(1, 3, 20)
    whole = clustered([as_windows(vectors)], SETTINGS)
    parts = clustered([as_windows(vectors[:25]), as_windows(vectors[25:])], Diarising(most=4))
    assert len(whole) == len(parts) == 3
    assert (np.abs(whole @ parts.T).max(1) > 0.999).all()
    assert len(clustered([as_windows(vectors)], SETTINGS, count=2)) == 2
    assert len(clustered([as_windows(vectors[:2])], SETTINGS, count=5)) == 2  # more than there are windows
    assert clustered([], SETTINGS).shape[0] == 0


def test_one_who_says_next_to_nothing_is_somebody_else() -> None:
    vectors = np.concatenate([np.eye(4)[[0] * 10], np.eye(4)[[1] * 2]])
    assert len(clustered([as_windows(vectors)], SETTINGS)) == 1
    assert len(clustered([as_windows(vectors)], SETTINGS, count=2)) == 2
    assert len(clustered([as_windows(vectors[-2:])], SETTINGS)) == 1  # but not where nobody else speaks


def test_paths_are_the_best_of_all() -> None:
    draw = np.random.default_rng(3)
    for change in (0.0, 0.4, 9.0):
        score = draw.standard_normal((6, 3))

        def worth(path: Sequence[int], score: np.ndarray = score, change: float = change) -> float:
            changes = sum(a != b for a, b in itertools.pairwise(path))
            return sum(float(score[q, who]) for q, who in enumerate(path)) - change * changes

        best = max(map(worth, itertools.product(range(3), repeat=6)))
        assert worth(_likeliest(score, change).tolist()) == pytest.approx(best)


def test_windows_cover_spans_to_their_ends() -> None:
    assert windows([(100, 700)], RATE, SETTINGS) == [(100, 700)]
    assert windows([(0, 3100)], RATE, SETTINGS) == [(0, 1500), (750, 2250), (1500, 3000), (1600, 3100)]
    assert windows([(0, 1500), (5000, 7250)], RATE, SETTINGS) == [(0, 1500), (5000, 6500), (5750, 7250)]


def test_two_who_take_turns() -> None:
    """Levels stand for voices: 4 s of one, 3 s of the other, a pause, a word too short to tell, 2 s of the first."""

    def embed(parts: Sequence[Floats]) -> np.ndarray:
        share = np.array([[float((part == 1).mean()), float((part == 2).mean())] for part in parts])
        return share / np.linalg.norm(share, axis=1, keepdims=True)

    sound = np.repeat([1, 2, 0, 1, 0, 1], [4000, 3000, 1000, 200, 800, 2000]).astype(np.float32)
    spans = [(0, 7000), (8000, 8200), (9000, 11_000)]
    seen = looked_at(sound, RATE, spans, embed, SETTINGS)
    assert (seen.at[:, 1] <= 11_000).all() and not ((seen.at[:, 0] >= 8000) & (seen.at[:, 1] <= 8200)).any()
    speakers = clustered([seen], SETTINGS, 2)
    found = joined(turns(seen, speakers, RATE, SETTINGS))
    assert [turn.speaker for turn in found] == [0, 1, 1, 0]
    assert found[0].end == found[1].start == pytest.approx(4, abs=0.26)
    assert (found[1].end, found[2].start, found[2].end, found[-1].end) == (7.0, 8.0, 8.2, 11.0)
    later = turns(seen.later(5000), speakers, RATE, SETTINGS)
    assert joined(later) == [Turn(turn.start + 5, turn.end + 5, turn.speaker) for turn in found]


def test_a_change_is_where_it_is_softest() -> None:
    def embed(parts: Sequence[Floats]) -> np.ndarray:
        share = np.array([[float((abs(part) > 2).mean()), float((abs(part) == 1).mean()) + 1e-6] for part in parts])
        return share / np.linalg.norm(share, axis=1, keepdims=True)

    sound = np.repeat([3, 0, 1], [4000, 400, 3600]).astype(np.float32)
    seen = looked_at(sound, RATE, [(0, 8000)], embed, SETTINGS)
    for moved in (seen, seen.later(2000)):
        one, other = turns(moved, np.eye(2), RATE, SETTINGS)
        assert one.end == other.start and 4.0 < one.end - moved.start / RATE < 4.4


def test_nobody() -> None:
    seen = looked_at(np.zeros(0, np.float32), RATE, [], lambda parts: np.zeros((0, 2)), SETTINGS)
    assert clustered([seen], SETTINGS).shape[0] == 0 and turns(seen, np.zeros((0, 1)), RATE, SETTINGS) == []


def test_turns_of_one_are_joined_and_numbered_by_first_words() -> None:
    made = joined([Turn(0, 1, 4), Turn(1.2, 2, 4), Turn(2, 3, 0), Turn(4, 5, 0)])
    assert made == [Turn(0, 2, 0), Turn(2, 3, 1), Turn(4, 5, 1)]


def test_odd_windows_do_not_take_the_place_of_a_speaker() -> None:
    """Two who are rather alike, and one window that is like nobody: the two are found."""
    one, other = np.array([1.0, 0.0, 0.0]), np.array([0.8, 0.6, 0.0])
    vectors = np.stack([one] * 5 + [other] * 5 + [np.array([0.0, 0.0, 1.0])])
    found = clustered([as_windows(vectors)], SETTINGS, count=2)
    np.testing.assert_allclose(np.sort(found @ one), [0.8, 1.0], atol=1e-9)
