"""Scaled dot-product attention with grouped queries, masks and soft caps.

Legend: B batch, H query heads, K key-value heads (a divisor of H), G = H / K, T queries, S keys, D head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(
    q_BHTD: Tensor,
    k_BKSD: Tensor,
    v_BKSD: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
) -> Tensor:
    """softmax(q k^T * scale + mask) v, `[B, H, T, D]`.

    `mask` broadcasts to [B, H, T, S]: bool (True attends) or float (added). `causal` lets the last query see all keys
    and each earlier one a key less. `scale` is D^-0.5 unless given. `softcap` c > 0 turns scores s into c tanh(s / c)
    before the mask, as Gemma 2 does (arXiv 2408.00118). `sinks` `[H]` is a further score of each head that takes its
    share of the softmax and has no value, as in gpt-oss (after Xiao et al. 2023, arXiv 2309.17453). Query heads that
    share a key-value head (Ainslie et al. 2023, arXiv 2305.13245) read it where it lies, without a copy. A row that may
    attend to nothing is undefined.
    """
    T, S = q_BHTD.shape[-2], k_BKSD.shape[-2]
    if causal and (T != S or mask is not None or softcap or sinks is not None):
        causal = False
        if T > 1:
            mask = joined(mask, causal_mask(T, S, q_BHTD.device))
    if softcap or sinks is not None:
        return _eager(q_BHTD, k_BKSD, v_BKSD, mask, scale, softcap, sinks)
    H, K = q_BHTD.shape[1], k_BKSD.shape[1]
    if T == 1 and H != K:  # the G queries of one key head become rows of one product
        if mask is not None and mask.dim() == 4 and mask.shape[1] > 1:
            mask = mask.expand(-1, H, -1, -1).reshape(mask.shape[0], K, H // K, mask.shape[-1])
        q_BKGD = q_BHTD.reshape(q_BHTD.shape[0], K, H // K, q_BHTD.shape[-1])
        out_BKGD = F.scaled_dot_product_attention(q_BKGD, k_BKSD, v_BKSD, attn_mask=mask, scale=scale)
        return out_BKGD.reshape(*q_BHTD.shape[:-1], v_BKSD.shape[-1])
    if q_BHTD.requires_grad and q_BHTD.dtype == torch.bfloat16 and q_BHTD.device.type == "cpu":
        # The way back of PyTorch's kernel takes four times as long in bfloat16 there, the way forth no less.
        mask = mask if mask is None or mask.dtype == torch.bool else mask.float()
        wide_BHTD = attend(q_BHTD.float(), k_BKSD.float(), v_BKSD.float(), mask=mask, causal=causal, scale=scale)
        return wide_BHTD.to(torch.bfloat16)
    return F.scaled_dot_product_attention(
        q_BHTD, k_BKSD, v_BKSD, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=H != K
    )


def causal_mask(queries: int, keys: int, device: torch.device | None = None, window: int = 0) -> Tensor:
    """bool [queries, keys]: True where the key is no later than the query, the last of both being the same token.

    `window` w > 0 also leaves out keys that are w or more tokens back.
    """
    at_T1 = torch.arange(keys - queries, keys, device=device)[:, None]
    at_S = torch.arange(keys, device=device)
    seen = at_S <= at_T1
    return seen & (at_T1 - at_S < window) if window else seen


def joined(mask: Tensor | None, seen: Tensor) -> Tensor:
    """`mask` (bool, float or none) with all that the bool `seen` hides taken out as well."""
    if mask is None:
        return seen
    if mask.dtype == torch.bool:
        return mask & seen
    return mask.masked_fill(~seen, -torch.inf)


def _eager(
    q_BHTD: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None, softcap: float, sinks: Tensor | None
) -> Tensor:
    B, H, T, D = q_BHTD.shape
    K, S = k.shape[1], k.shape[2]
    q_BKGTD = q_BHTD.reshape(B, K, H // K, T, D)
    s_BHTS = (q_BKGTD @ k[:, :, None].mT).reshape(B, H, T, S).float() * (D**-0.5 if scale is None else scale)
    if softcap:
        s_BHTS = softcap * torch.tanh(s_BHTS / softcap)
    if mask is not None:
        s_BHTS = s_BHTS.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else s_BHTS + mask
    if sinks is not None:
        s_BHTS = torch.cat([s_BHTS, sinks.float()[None, :, None, None].expand(B, H, T, 1)], dim=-1)
    p_BKGTS = s_BHTS.softmax(-1)[..., :S].to(v.dtype).reshape(B, K, H // K, T, S)
    return (p_BKGTS @ v[:, :, None]).reshape(B, H, T, v.shape[-1])
