"""Packed matrices: rows come out as they went in, and products are those of the numbers they stand for."""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.nn.native.build import native
from conjure.nn.native.pack import Arena, Packed, Stored, bytes_of, forget, pack
from conjure.nn.rounding import restored, rounded

KINDS = ("fp32", "bf16", "int8", "int4")


@pytest.fixture(autouse=True)
def one_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests of compiled code share a folder, so that it is compiled once."""
    monkeypatch.setenv("CONJURE_CACHE", str(Path(tempfile.gettempdir()) / f"conjure-native-{os.getuid()}"))


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def meant(weight: Tensor, kind: str) -> Tensor:
    """The numbers that a matrix of this kind stands for."""
    if kind in ("int8", "int4"):
        padded = torch.nn.functional.pad(weight, (0, -weight.shape[1] % 32))
        return restored(*rounded(padded, "int8" if kind == "int8" else "int4"))[:, : weight.shape[1]]
    return weight.bfloat16().float() if kind == "bf16" else weight


def rounded_input(x: Tensor) -> Tensor:
    """Activations as products of small integers see them: int8 with a scale for 32."""
    groups = torch.nn.functional.pad(x, (0, -x.shape[1] % 32)).unflatten(1, (-1, 32))
    most = groups.abs().amax(-1, keepdim=True)
    return ((groups * torch.where(most > 0, 127 / most, 0)).round() * (most / 127)).flatten(1)[:, : x.shape[1]]


def product(packed: Packed, x: Tensor, threads: int) -> Tensor:
    library = native().library
    assert library is not None
    y = torch.zeros(len(x), -(-packed.rows // 16) * 16)
    matrix = packed.matrix()
    library.conjure_product(ctypes.byref(matrix), x.data_ptr(), y.data_ptr(), len(x), threads)
    return y[:, : packed.rows]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "cols"), [(16, 32), (50, 96), (37, 70), (200, 640)])
def test_products_and_rows(kind: str, rows: int, cols: int, random: torch.Generator) -> None:
    weight = torch.randn(rows, cols, generator=random)
    library = native().library
    if library is None:
        return  # nothing reads what is packed then, and nothing packs it
    packed = pack(weight, kind, Arena())
    assert packed.data.numel() == bytes_of(rows, cols, kind)[0]
    reference = meant(weight, kind)
    for count in (1, 2, 3, 8, 15, 33):
        x = torch.randn(count, cols, generator=random)
        x[0, :32] = 0
        seen = rounded_input(x) if kind in ("int8", "int4") else x
        wanted = seen.double() @ reference.double().T
        for threads in (1, 2):
            got = product(packed, x, threads)
            assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    out = torch.zeros(cols)
    for row in (0, rows // 2, rows - 1):
        library.conjure_row(ctypes.byref(packed.matrix()), row, out.data_ptr())
        assert torch.allclose(out, reference[row], rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_stored_matrices_are_packed_without_rounding_again(kind: str, random: torch.Generator) -> None:
    weight = torch.randn(40, 128, generator=random)
    for group in (32, 64, *([0] if kind == "int8" else [])):
        q, scale = rounded(weight, "int8" if kind == "int8" else "int4", group)
        whole, apart = pack(Stored(q, scale, kind), kind, Arena()), restored(q, scale)
        library, out = native().library, torch.zeros(128)
        assert (whole.rows, whole.cols) == (40, 128)
        if library is not None:
            library.conjure_row(ctypes.byref(whole.matrix()), 39, out.data_ptr())
            assert torch.equal(out, apart[39])


def test_groups_that_are_too_small_are_refused() -> None:
    stored = Stored(torch.zeros(16, 64, dtype=torch.int8), torch.ones(16, 4).half(), "int8")
    with pytest.raises(ConjureError, match="groups of 16"):
        pack(stored, "int8", Arena())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_floats_are_rounded_as_elsewhere_bit_for_bit(kind: Any, dtype: torch.dtype, random: torch.Generator) -> None:
    if native().library is None:
        return
    spread = torch.logspace(-9, 3, 150)[:, None]  # scales from below what float16 holds
    for cols in (96, 70):
        weight = (torch.randn(150, cols, generator=random) * spread).to(dtype)
        weight[::7, 5:40] = 0
        padded = torch.nn.functional.pad(weight, (0, -cols % 32))
        wanted = pack(Stored(*rounded(padded, kind), kind), kind, Arena())
        for given in (weight, torch.cat([weight, weight], dim=1)[:, :cols], weight.T.contiguous().T):
            got = pack(given, kind, Arena())
            assert got.scale is not None and wanted.scale is not None
            assert torch.equal(got.scale, wanted.scale) and torch.equal(got.data, wanted.data)


def test_what_cannot_be_rounded_is_said(random: torch.Generator) -> None:
    if native().library is None:
        return
    weight = torch.randn(40, 64, generator=random)
    for wrong, words in ((torch.nan, "finite numbers"), (torch.inf, "finite numbers"), (-1e38, "too large")):
        weight[33, 50] = wrong
        for kind in ("int8", "int4"):
            with pytest.raises(ConjureError, match=words):
                pack(weight, kind, Arena())


def test_pieces_are_packed_like_the_whole(monkeypatch: pytest.MonkeyPatch, random: torch.Generator) -> None:
    weight = torch.randn(70, 64, generator=random)
    stored = [Stored(*rounded(weight, kind), kind) for kind in ("int8", "int4")]  # type: ignore[arg-type]
    given: list[tuple[Tensor | Stored, str]] = [(each, each.kind) for each in stored]
    if native().library is not None:
        given += [(weight, kind) for kind in KINDS]
    for each, kind in given:
        whole = pack(each, kind, Arena())
        monkeypatch.setattr("conjure.nn.native.pack.PIECE", 64 * 16)
        parts = pack(each, kind, Arena())
        monkeypatch.undo()
        assert torch.equal(whole.data, parts.data)
        if whole.scale is not None and parts.scale is not None:
            assert torch.equal(whole.scale, parts.scale)


def test_arenas_align_and_forgetting_keeps_what_is_in_memory() -> None:
    arena = Arena()
    taken = [arena.take(size) for size in (1, 100, 2**27)]
    assert all(part.data_ptr() % 64 == 0 for part in taken)
    taken[1].fill_(7)
    kept = torch.full((100_000,), 3.0)
    forget(kept)
    assert (taken[1] == 7).all() and (kept == 3).all()
