from __future__ import annotations

import pytest
import torch

from conjure.nn.vector_quantiser import VectorQuantiser


def quantiser(codes: list[list[float]], **settings: float) -> VectorQuantiser:
    made = VectorQuantiser(len(codes), len(codes[0]), **settings)  # type: ignore[arg-type]
    made.codes_CD.copy_(torch.tensor(codes))
    return made


def grid(*vectors: list[float]) -> torch.Tensor:
    """[1, D, 1, w]"""
    return torch.tensor(vectors).T[None, :, None, :].clone()


def test_the_nearest_code_and_the_distance_to_it() -> None:
    book = quantiser([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]]).eval()
    out, ids, commitment = book(grid([0.9, 0.1], [0.2, -0.1], [0.5, 2.0]))
    assert ids.tolist() == [[[1, 0, 2]]]
    assert torch.allclose(out, grid([1.0, 0.0], [0.0, 0.0], [0.0, 3.0]))
    assert commitment.item() == pytest.approx((0.01 + 0.01 + 0.04 + 0.01 + 0.25 + 1.0) / 6)
    torch.manual_seed(0)
    z_ND, large = torch.randn(40, 5), VectorQuantiser(20, 5)
    large.start_from(torch.randn(100, 5))
    assert torch.equal(large.nearest(z_ND), torch.cdist(z_ND, large.codes_CD).argmin(1))


def test_gradients_go_straight_through() -> None:
    book = quantiser([[0.0, 0.0], [1.0, 0.0]])
    z = grid([0.9, 0.1], [0.2, 0.3]).requires_grad_()
    out, _, _ = book(z)
    (out * grid([2.0, 3.0], [5.0, 7.0])).sum().backward()
    assert z.grad is not None and torch.allclose(z.grad, grid([2.0, 3.0], [5.0, 7.0]))
    z.grad = None
    book(z)[2].sum().backward()
    assert z.grad is not None and z.grad.abs().sum() > 0 and not list(book.parameters())


def test_codes_become_the_means_of_their_vectors() -> None:
    book = quantiser([[0.0, 0.0], [10.0, 0.0]], decay=0.9, dead=0.0)
    first = grid([1.0, 0.0], [3.0, 0.0], [9.0, 1.0])
    book(first)
    assert torch.allclose(book.codes_CD, torch.tensor([[2.0, 0.0], [9.0, 1.0]]))
    second = grid([0.0, 0.0], [0.0, 4.0], [8.0, 0.0])
    book(second)  # the old sums count 0.9 of the new ones
    assert torch.allclose(book.codes_CD, torch.tensor([[0.9 * 4 / 3.8, 4 / 3.8], [(8.1 + 8) / 1.9, 0.9 / 1.9]]))
    assert torch.allclose(book.counts_C, torch.tensor([0.9 * 0.2 + 0.2, 0.9 * 0.1 + 0.1]))


def test_nothing_moves_outside_of_training() -> None:
    book = quantiser([[0.0, 0.0], [1.0, 0.0]])
    before = book.codes_CD.clone()
    with torch.no_grad():
        book(grid([5.0, 5.0]))
    book.eval()(grid([5.0, 5.0]))
    assert torch.equal(book.codes_CD, before)


def test_dead_codes_come_to_life_again() -> None:
    torch.manual_seed(0)
    book = VectorQuantiser(32, 4, decay=0.9, dead=0.05)
    book.codes_CD.copy_(100 + torch.randn(32, 4))  # far from all vectors: one code would take them all
    z = torch.randn(8, 4, 4, 4)
    assert len(book.eval()(z)[1].unique()) == 1
    book.train()
    for _ in range(40):
        book(z)
    assert len(book.eval()(z)[1].unique()) >= 30
    assert book.codes_CD.abs().max() < 5


def test_the_draw_is_the_steps_own() -> None:
    found = []
    for _ in range(2):
        book = quantiser([[0.0, 0.0], [100.0, 0.0], [100.0, 1.0]])
        torch.manual_seed(5)
        book(torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(1)))
        found.append(book.codes_CD)
    assert torch.equal(*found)
