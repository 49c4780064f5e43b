from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conjure.core.seeds import Noise, derive, generator, normal, rng, uniform


def test_derive_is_pinned_for_ever() -> None:
    assert derive(0) == 5621864261735219286
    assert derive(0, "data", 7) == 3565420107900984750
    assert derive(-1, "ä") == 5262536230364758949
    assert derive(2**63 - 1, 1, 2, 3) == 6219951996178259849


@settings(max_examples=60, deadline=None)
@given(st.integers(-(2**70), 2**70), st.lists(st.integers() | st.text(max_size=8), max_size=4))
def test_derive_fits_63_bits_and_repeats(seed: int, path: list[int | str]) -> None:
    value = derive(seed, *path)
    assert 0 <= value < 2**63
    assert value == derive(seed, *path)


def test_derive_separates_paths() -> None:
    paths = [(), (1,), ("1",), (1, 2), (12,), ("1,2",), ("a", "b"), ("ab",), ('a","b',), ("",), (0,)]
    assert len({derive(s, *p) for s in (0, 1) for p in paths}) == 2 * len(paths)


def test_derive_takes_numpy_integers() -> None:
    assert derive(np.int64(3), np.int32(4)) == derive(3, 4)  # type: ignore[arg-type]


def test_streams_are_pinned() -> None:
    """A change here changes every picture that a seed names."""
    np.testing.assert_allclose(normal([0], (3,))[0], [0.26641053, 0.72682846, 0.13341261], rtol=1e-6)
    np.testing.assert_allclose(uniform([0], (3,))[0], [0.24929631, 0.05647039, 0.75772280], rtol=1e-6)
    np.testing.assert_allclose(Noise([0])((3,))[0], [-0.18612650, -0.38308886, -1.36452997], rtol=1e-6)


@pytest.mark.parametrize("draw", [normal, uniform, lambda seeds, shape: Noise(seeds)(shape)])
def test_a_sample_is_the_same_alone_and_in_any_batch(draw) -> None:
    seeds = [5, 3, 2**62, 3]
    together = draw(seeds, (2, 3))
    assert together.shape == (4, 2, 3)
    assert together.dtype == torch.float32
    assert together.device.type == "cpu"
    for k, seed in enumerate(seeds):
        assert torch.equal(together[k], draw([seed], (2, 3))[0])
    assert torch.equal(together[1], together[3])
    assert not torch.equal(together[0], together[1])


def test_noise_goes_on_and_each_sample_has_its_own_stream() -> None:
    both, alone = Noise([1, 2]), Noise([2])
    first, second = both((4,)), both((2, 2))
    assert torch.equal(first[1], alone((4,))[0])
    assert torch.equal(second[1], alone((2, 2))[0])
    assert not torch.equal(first, second.reshape(2, 4))


def test_start_noise_and_step_noise_differ() -> None:
    start, step, flat = normal([7], (64,)), Noise([7])((64,)), uniform([7], (64,))
    assert abs(torch.corrcoef(torch.cat([start, step, flat]))[0, 1]) < 0.5
    assert not torch.equal(start, step)


def test_moments() -> None:
    gaussian, flat = normal(range(4), (10_000,)), uniform(range(4), (10_000,))
    assert abs(gaussian.mean()) < 0.02
    assert abs(gaussian.var() - 1) < 0.03
    assert abs(flat.mean() - 0.5) < 0.01
    assert abs(flat.var() - 1 / 12) < 0.005
    assert flat.min() >= 0
    assert flat.max() < 1


def test_shapes_without_extent() -> None:
    assert normal([1, 2]).shape == (2,)
    assert uniform([1, 2]).shape == (2,)
    assert normal([], (3,)).shape == (0, 3)
    assert Noise([1])().shape == (1,)


def test_seeds_may_come_as_a_tensor() -> None:
    assert torch.equal(normal(torch.tensor([4, 5]), (2,)), normal([4, 5], (2,)))


def test_all_bits_of_a_seed_count() -> None:
    def draw(seed: int) -> torch.Tensor:
        return torch.randn(8, generator=generator(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(1 + 2**32))
    assert rng(1).integers(2**60) == rng(1).integers(2**60)
    assert rng(1).integers(2**60) != rng(1 + 2**32).integers(2**60)
    assert rng(-1).integers(2**60) != rng(1).integers(2**60)


def test_the_global_generators_are_not_touched() -> None:
    before, state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    normal([1], (3,))
    Noise([1])((3,))
    generator(3)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002
