"""Vectors as numbers of codes from several books, each of which describes what the ones before it left over (Zeghidour
et al. 2021, arXiv 2107.03312, section III.C): the more books are used, the finer.

Legend: B rows, D width of a vector, T frames, Q books, N vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from conjure.nn.vector_quantiser import VectorQuantiser

ROUNDS = 4
"""Of k-means, before training."""


class ResidualQuantiser(nn.Module):
    """Books that follow their vectors by moving averages; codes that nothing uses are put where vectors are."""

    def __init__(self, books: int, codes: int, dim: int, *, decay: float = 0.98, dead: float = 0.05) -> None:
        super().__init__()
        self.books = nn.ModuleList(VectorQuantiser(codes, dim, decay=decay, dead=dead) for _ in range(books))

    @torch.no_grad()
    def encode(self, z_BDT: Tensor, books: int = 0) -> Tensor:
        """The numbers of the codes in the first `books` (0: all), int64 `[B, Q, T]`."""
        B, D, T = z_BDT.shape
        left_ND, found = z_BDT.movedim(1, -1).reshape(-1, D).float(), []
        for book in self._first(books):
            ids_N = book.nearest(left_ND)
            left_ND = left_ND - book.vectors(ids_N)
            found.append(ids_N.view(B, T))
        return torch.stack(found, 1)

    def decode(self, ids_BQT: Tensor) -> Tensor:
        """The sums of these codes `[B, D, T]`; Q may be less than there are books."""
        parts = [book.vectors(ids_BT) for book, ids_BT in zip(self._first(ids_BQT.shape[1]), ids_BQT.unbind(1))]
        total_BTD = parts[0]
        for part_BTD in parts[1:]:
            total_BTD = total_BTD + part_BTD
        return total_BTD.movedim(-1, 1)

    def forward(self, z_BDT: Tensor, books_B: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The sums of codes in the vectors' place `[B, D, T]`, whose gradient is passed on to the vectors; the codes'
        numbers `[B, Q, T]`; and the commitment `[B]`, the mean square of what is left, averaged over books.

        Row b uses the first `books_B[b]` books alone; all books follow all rows, so that none stays behind.
        """
        left_BDT, total_BDT = z_BDT, torch.zeros_like(z_BDT)
        found, commitment_B, used_B = [], z_BDT.new_zeros(len(z_BDT)), z_BDT.new_zeros(len(z_BDT))
        for place, book in enumerate(self.books):
            on_B = z_BDT.new_ones(len(z_BDT)) if books_B is None else (books_B > place).to(z_BDT.dtype)
            q_BDT1, ids_BT1, far_B = book(left_BDT[..., None])
            q_BDT = q_BDT1[..., 0].detach()
            total_BDT = total_BDT + q_BDT * on_B[:, None, None]
            commitment_B, used_B = commitment_B + far_B * on_B, used_B + on_B
            left_BDT = left_BDT - q_BDT
            found.append(ids_BT1[..., 0])
        return z_BDT + (total_BDT - z_BDT).detach(), torch.stack(found, 1), commitment_B / used_B

    @torch.no_grad()
    def start_from(self, z_BDT: Tensor) -> None:
        """The codes of each book are centres (k-means) of what the books before it leave of these vectors."""
        left_ND = z_BDT.movedim(1, -1).flatten(0, 1).float()
        for place, book in enumerate(self._first(0)):
            book.start_from(left_ND.roll(place, 0))  # of the very vectors that are codes nothing is left
            for _ in range(ROUNDS):
                settle(book, left_ND)
            left_ND = left_ND - book.vectors(book.nearest(left_ND))

    def _first(self, books: int) -> list[VectorQuantiser]:
        return list(self.books)[: books or None]  # type: ignore[arg-type]


def settle(book: VectorQuantiser, z_ND: Tensor) -> None:
    """One round of Lloyd's: every code goes to the mean of the vectors that are nearest to it, if there are any."""
    ids_N = book.nearest(z_ND)
    counts_C = torch.zeros_like(book.counts_C).index_add_(0, ids_N, torch.ones_like(z_ND[:, 0]))
    sums_CD = torch.zeros_like(book.codes_CD).index_add_(0, ids_N, z_ND)
    book.codes_CD.copy_(torch.where(counts_C[:, None] > 0, sums_CD / counts_C[:, None].clamp_min(1), book.codes_CD))


class FactorisedQuantiser(nn.Module):
    """The same with books of few dimensions, in which the direction alone is looked up (Kumar et al. 2023, arXiv
    2306.06546, section 3.2): vectors are projected into a book's space, and its codes back."""

    def __init__(self, books: int, codes: int, dim: int, narrow: int) -> None:
        super().__init__()
        self.books = nn.ModuleList(FactorisedBook(codes, dim, narrow) for _ in range(books))

    @torch.no_grad()
    def encode(self, z_BDT: Tensor, books: int = 0) -> Tensor:
        """The numbers of the codes in the first `books` (0: all), int64 `[B, Q, T]`."""
        left_BDT, found = z_BDT, []
        for book in list(self.books)[: books or None]:
            ids_BT = book.nearest(left_BDT)  # type: ignore[operator]
            left_BDT = left_BDT - book.vectors(ids_BT)  # type: ignore[operator]
            found.append(ids_BT)
        return torch.stack(found, 1)

    def decode(self, ids_BQT: Tensor) -> Tensor:
        """The sums of these codes `[B, D, T]`."""
        parts = [book.vectors(ids_BT) for book, ids_BT in zip(self.books, ids_BQT.unbind(1))]  # type: ignore[operator]
        total_BDT = parts[0]
        for part_BDT in parts[1:]:
            total_BDT = total_BDT + part_BDT
        return total_BDT


class FactorisedBook(nn.Module):
    def __init__(self, codes: int, dim: int, narrow: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv1d(dim, narrow, 1), nn.Conv1d(narrow, dim, 1)
        self.codes = nn.Embedding(codes, narrow)

    def nearest(self, z_BDT: Tensor) -> Tensor:
        """The number of the code whose direction is nearest, int64 `[B, T]`."""
        towards_BTD = nn.functional.normalize(self.down(z_BDT).movedim(1, -1), dim=-1)
        codes_CD = nn.functional.normalize(self.codes.weight)
        # Of vectors of length 1 the nearest has the largest product.
        return (2 * towards_BTD @ codes_CD.T - codes_CD.square().sum(1)).argmax(-1)

    def vectors(self, ids_BT: Tensor) -> Tensor:
        """`[B, D, T]`."""
        return self.up(self.codes(ids_BT).movedim(-1, 1))
