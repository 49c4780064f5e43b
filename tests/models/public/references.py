"""Tiny random models of the reference implementation, saved as the hub has them: every parameter is drawn anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-5
"""Of the largest value of the reference: a wrong kind of GELU differs by 1e-4."""


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Norms near 1, all else near 0, so that no default hides a mistake; frozen tables stay."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.2 * drawn + (1.0 if parameter.ndim == 1 and parameter.mean() == 1 else 0.0))
        for name, buffer in model.named_buffers():
            if name.endswith(("final_logits_bias", "e_score_correction_bias")):
                buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator))
    return model.eval().requires_grad_(False)


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def close(got: Tensor, wanted: Tensor, where: Tensor | None = None, tolerance: float = TOLERANCE) -> None:
    """Within tolerance of the largest value, where the mask is 1."""
    assert got.shape == wanted.shape
    if where is not None:
        got, wanted = got[where.bool()], wanted[where.bool()]
    assert wanted.isfinite().all(), "the reference itself is no number"
    difference = (got - wanted).abs().max().item()
    assert difference <= tolerance * wanted.abs().max().item(), f"{difference} of {wanted.abs().max().item()}"


def batch(vocab: int = 96, rows: int = 3, length: int = 13, left: bool = False) -> tuple[Tensor, Tensor]:
    """(ids, mask): rows of different length, padded with 0 on the right or left; ids above 3."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(4, vocab, (rows, length), generator=generator)
    mask = torch.ones(rows, length, dtype=torch.long)
    for row in range(rows):
        cut = 3 * row
        if cut:
            at = slice(0, cut) if left else slice(length - cut, length)
            ids[row, at], mask[row, at] = 0, 0
    return ids, mask
