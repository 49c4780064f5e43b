"""Residual quantisation: the same sums in training and in use, finer with every book, and no code that nothing uses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from conjure.nn.residual_quantiser import FactorisedQuantiser, ResidualQuantiser


def vectors(rows: int = 3, width: int = 4, frames: int = 50, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, frames, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def quantiser() -> ResidualQuantiser:
    made = ResidualQuantiser(3, 16, 4)
    made.start_from(vectors())
    return made


def test_each_book_describes_what_is_left(quantiser: ResidualQuantiser) -> None:
    z_BDT = vectors()
    ids_BQT = quantiser.encode(z_BDT)
    assert ids_BQT.shape == (3, 3, 50) and ids_BQT.dtype == torch.int64
    left_ND, far = z_BDT.movedim(1, -1).reshape(-1, 4), []
    for place, book in enumerate(quantiser.books):
        apart_NC = torch.cdist(left_ND, book.codes_CD)  # type: ignore[arg-type]
        assert torch.equal(apart_NC.argmin(1), ids_BQT[:, place].flatten())
        left_ND = left_ND - book.codes_CD[ids_BQT[:, place].flatten()]  # type: ignore[index]
        far.append(left_ND.square().mean().item())
        made_BDT = quantiser.decode(quantiser.encode(z_BDT, place + 1))
        assert (z_BDT - made_BDT).square().mean().item() == pytest.approx(far[-1], rel=1e-5)
    assert far[2] < far[1] < far[0] < 1


def test_training_gives_what_use_gives(quantiser: ResidualQuantiser) -> None:
    z_BDT = vectors(seed=1).requires_grad_()
    quantiser.eval()
    q_BDT, ids_BQT, far_B = quantiser(z_BDT)
    assert torch.equal(ids_BQT, quantiser.encode(z_BDT))
    assert torch.allclose(q_BDT, quantiser.decode(ids_BQT), atol=1e-6)
    # The gradient goes straight through, and that of the commitment towards the codes.
    (grad,) = torch.autograd.grad(q_BDT.sum(), z_BDT, retain_graph=True)
    assert torch.equal(grad, torch.ones_like(grad))
    (grad,) = torch.autograd.grad(far_B.sum(), z_BDT)
    closer = quantiser(z_BDT - 0.1 * grad)[2]
    assert bool((closer < far_B).all())


def test_rows_may_use_fewer_books(quantiser: ResidualQuantiser) -> None:
    z_BDT = vectors()
    q_BDT, ids_BQT, _ = quantiser.eval()(z_BDT, torch.tensor([1, 2, 3]))
    for row in range(3):
        wanted = quantiser.decode(ids_BQT[row : row + 1, : row + 1])
        assert torch.allclose(q_BDT[row : row + 1], wanted, atol=1e-6)


def test_no_code_stays_dead() -> None:
    quantiser = ResidualQuantiser(2, 32, 4, decay=0.9)  # all codes at 0: one is used
    torch.manual_seed(0)
    for step in range(60):
        quantiser(vectors(4, seed=step).requires_grad_())
    ids_BQT = quantiser.encode(vectors(20, seed=99))
    for place in range(2):
        assert len(ids_BQT[:, place].unique()) >= 30
    assert (quantiser.decode(ids_BQT) - vectors(20, seed=99)).square().mean() < 0.35


def test_factorised_books_look_at_directions() -> None:
    torch.manual_seed(0)
    quantiser, z_BDT = FactorisedQuantiser(2, 8, 6, 3), vectors(2, 6, 9)
    with torch.no_grad():
        ids_BQT = quantiser.encode(z_BDT)
        book, other = quantiser.books
        towards_BTD = F.normalize(book.down(z_BDT).movedim(1, -1), dim=-1)  # type: ignore[operator]
        cosines_BTC = towards_BTD @ F.normalize(book.codes.weight).T  # type: ignore[operator, union-attr]
        assert torch.equal(ids_BQT[:, 0], cosines_BTC.argmax(-1))
        first = book.vectors(ids_BQT[:, 0])  # type: ignore[operator]
        assert torch.equal(ids_BQT[:, 1], other.nearest(z_BDT - first))  # type: ignore[operator]
        both = first + other.vectors(ids_BQT[:, 1])  # type: ignore[operator]
        assert torch.allclose(quantiser.decode(ids_BQT), both) and torch.equal(quantiser.decode(ids_BQT[:, :1]), first)
