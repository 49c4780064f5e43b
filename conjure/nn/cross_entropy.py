"""Cross-entropy straight from the last hidden states: the logits of all tokens never exist at once.

Legend: N tokens, D width, V vocabulary, C tokens of one chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

IGNORED = -100
CHUNK = 512
"""Tokens per chunk: their logits over 8k classes fill 16 MiB, which stays in the cache."""


def linear_cross_entropy(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, softcap: float = 0.0) -> Tensor:
    """Sum of -log softmax(x W^T)[target] over the tokens whose target is not `IGNORED`; a float32 scalar.

    `softcap` c > 0 turns logits l into c tanh(l / c) first. The gradient is computed along with the value, chunk by
    chunk, as in Liger kernels (Hsu et al. 2024, arXiv 2410.10989). Twice differentiable it is not.
    """
    loss: Tensor = _LinearCrossEntropy.apply(x_ND, weight_VD, targets_N, softcap)
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, softcap: float) -> Tensor:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        loss = torch.zeros((), device=x_ND.device)
        w_VD = weight_VD.to(x_ND.dtype)
        dx_ND = torch.empty_like(x_ND) if wanted else None
        dw_VD = torch.zeros_like(w_VD) if wanted else None
        # One buffer for the logits of all chunks, changed in place: bytes moved are what a softmax costs on a CPU, and
        # fresh memory costs a page fault per 4 KiB on top.
        buffer_CV = x_ND.new_empty(min(CHUNK, len(x_ND)), len(w_VD))
        for start in range(0, len(x_ND), CHUNK):
            x_CD, targets_C = x_ND[start : start + CHUNK], targets_N[start : start + CHUNK]
            counted_C1 = (targets_C != IGNORED).unsqueeze(1)
            index_C1 = targets_C.clamp_min(0).unsqueeze(1)
            logits_CV = torch.mm(x_CD, w_VD.mT, out=buffer_CV[: len(x_CD)]).float()
            slope_CV = None
            if softcap:
                bent_CV = torch.tanh(logits_CV / softcap)
                logits_CV, slope_CV = softcap * bent_CV, 1 - bent_CV.square()
            picked_C1 = logits_CV.gather(1, index_C1)
            top_C1 = logits_CV.amax(1, keepdim=True)
            d_CV = logits_CV.sub_(top_C1).exp_()
            sum_C1 = d_CV.sum(1, keepdim=True)
            loss += ((sum_C1.log() + top_C1 - picked_C1) * counted_C1).sum()
            if dx_ND is None or dw_VD is None:
                continue
            d_CV *= counted_C1 / sum_C1
            d_CV.scatter_add_(1, index_C1, -counted_C1.float())
            if slope_CV is not None:
                d_CV *= slope_CV
            d_CV = d_CV.to(x_ND.dtype)
            torch.mm(d_CV, w_VD, out=dx_ND[start : start + CHUNK])
            dw_VD.addmm_(d_CV.mT, x_CD)
        if dx_ND is not None and dw_VD is not None:
            ctx.save_for_backward(dx_ND, dw_VD.to(weight_VD.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dx_ND, dw_VD = ctx.saved_tensors
        return dx_ND * grads[0].to(dx_ND.dtype), dw_VD * grads[0], None, None
