"""Memory that is kept: what is set, for how long, and that results stay the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from conjure.nn import pages


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(pages, "_mallopt", lambda: lambda key, value: made.append((key, value)) or 1)
    return made


def test_kept_until_the_end_whatever_happens(calls: list[tuple[int, int]]) -> None:
    with pytest.raises(KeyError), pages.kept():
        assert calls == [(pages.MMAP_THRESHOLD, pages.KEPT), (pages.TRIM_THRESHOLD, 2 * pages.KEPT - 1)]
        raise KeyError
    assert calls[2:] == [(pages.MMAP_THRESHOLD, pages.USUAL), (pages.TRIM_THRESHOLD, 2 * pages.USUAL)]
    assert max(value for _, value in calls) < 2**31  # glibc takes an int


def test_steady_only_where_no_gradient_is_wanted(calls: list[tuple[int, int]]) -> None:
    @pages.steady
    def double(x: torch.Tensor, *, by: float = 2.0) -> torch.Tensor:
        """Twice."""
        return x * by

    x = torch.ones(3)
    assert torch.equal(double(x), x + 1) and not calls
    with torch.inference_mode():
        assert torch.equal(double(x, by=3.0), x + 2) and len(calls) == 4
    assert double.__doc__ == "Twice."


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_mallopt", lambda: None)
    with pages.kept():
        pass


def test_zeros_have_their_shape_and_can_be_written() -> None:
    made = pages.zeros((2, 3, 5), torch.float16)
    assert made.shape == (2, 3, 5) and made.dtype == torch.float16 and not made.any()
    made[1, 2] = 7
    assert made.sum() == 35


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux says there what lies in memory")
def test_zeros_take_memory_as_they_are_written() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before, size = resident(), 1 << 28
    made = pages.zeros((size,), torch.uint8)
    assert resident() - before < size // 8
    made[: size // 2] = 1
    assert size // 4 < resident() - before < size * 3 // 4
