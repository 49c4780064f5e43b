from __future__ import annotations

import re

import pytest

from conjure.studio.curve import LEFT, MOST, RIGHT, WIDTH, drawn, thinned


def points(svg: str) -> list[tuple[float, float]]:
    found = re.search(r'points="([^"]*)"', svg)
    assert found is not None
    return [(float(x), float(y)) for x, _, y in (pair.partition(",") for pair in found[1].split())]


def test_the_line_goes_from_the_first_step_to_the_last_and_down() -> None:
    svg = drawn([(0, 4.0), (50, 2.0), (100, 1.0)], {"loss": [(100, 1.5)]})
    line = points(svg)
    assert line[0][0] == LEFT and line[-1][0] == WIDTH - RIGHT
    assert line[0][1] < line[1][1] < line[2][1]  # downwards is larger
    assert 'aria-label="Loss by step: 4 at step 0, 1 at step 100"' in svg and "<circle" in svg


def test_what_is_to_come_is_left_free() -> None:
    assert points(drawn([(0, 4.0), (50, 2.0)], {}, steps=100))[-1][0] == LEFT + (WIDTH - LEFT - RIGHT) / 2


@pytest.mark.parametrize("losses", [[], [(1, float("nan"))]])
def test_without_numbers_there_is_no_curve(losses: list[tuple[int, float]]) -> None:
    assert drawn(losses, {}) == ""


def test_a_flat_line_is_a_line() -> None:
    assert len({y for _, y in points(drawn([(0, 1.0), (1, 1.0)], {}))}) == 1


def test_many_points_become_means() -> None:
    thin = thinned([(step, float(step)) for step in range(5000)])
    assert len(thin) <= MOST and thin[-1] == (4999, 4999.0)
    assert all(abs(step - value) < 1e-9 for step, value in thin)
