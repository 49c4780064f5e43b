from __future__ import annotations

import math

import pytest

from conjure.core.errors import ConjureError
from conjure.train.watch import FACTOR, PATIENCE, WINDOW, Watch, name_indices


def calm(warmup: int = 0) -> Watch:
    watch = Watch(warmup)
    for step in range(WINDOW):
        watch.check(step, 1.0, 1.0, range(4))
    return watch


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_no_number_stops_at_once_and_names_the_examples(loss: float, norm: float) -> None:
    with pytest.raises(ConjureError, match=r"step 7.*examples 28\.\.31"):
        Watch(0).check(7, loss, norm, range(28, 32))
    with pytest.raises(ConjureError, match="example 30"):
        Watch(0).check(7, loss, norm, range(28, 32), guilty=[30])


def test_a_loss_that_stays_high_stops_after_patience() -> None:
    watch = calm()
    for step in range(PATIENCE - 1):
        watch.check(WINDOW + step, 1.01 * FACTOR, 1.0, range(4))
    with pytest.raises(ConjureError, match=r"examples 12\.\.15"):
        watch.check(WINDOW + PATIENCE, 1.01 * FACTOR, 1.0, range(12, 16))


def test_spikes_and_warm_up_are_forgiven() -> None:
    watch = calm()
    for step in range(200):
        watch.check(WINDOW + step, 10.0 if step % 4 == 0 else 1.0, 1.0, range(4))
    warming = calm(warmup=1000)
    for step in range(2 * PATIENCE):
        warming.check(WINDOW + step, 10.0, 1.0, range(4))


def test_the_loss_of_a_game_may_rise_but_must_be_a_number() -> None:
    watch = Watch(0, game=True)
    for step in range(WINDOW + 2 * PATIENCE):
        watch.check(step, 0.001 if step < WINDOW else 2.0, 1.0, range(4))
    with pytest.raises(ConjureError, match="loss nan"):
        watch.check(WINDOW + 50, math.nan, 1.0, range(4))


def test_restored_watch_stops_at_the_same_step() -> None:
    watch, resumed = calm(), Watch(0)
    for step in range(5):
        watch.check(WINDOW + step, 9.0, 1.0, range(4))
    resumed.restore(watch.facts())
    assert resumed.facts() == watch.facts()
    with pytest.raises(ConjureError):
        for step in range(PATIENCE - 5):
            resumed.check(WINDOW + 5 + step, 9.0, 1.0, range(4))


def test_names() -> None:
    assert name_indices([5]) == "example 5"
    assert name_indices(range(3, 6)) == "examples 3..5"
    assert name_indices([9, 2]) == "examples 2, 9"
