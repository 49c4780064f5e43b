"""A plain loop in nanoGPT's manner: GPT-2 blocks, all logits at once, torch's AdamW, clipping; nothing else.

Written for this comparison. Shape suffixes: B rows, T tokens, D width, H heads, C head width, V vocabulary.
"""

from __future__ import annotations

import math
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.loops.work import Timed, Work


class Block(nn.Module):
    """x + attention(norm x), then x + gelu layers(norm x); no biases."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        D, wide = work.dim, work.hidden * 3 // 2
        self.heads = work.heads
        self.norm_attention, self.norm_feedforward = nn.LayerNorm(D, bias=False), nn.LayerNorm(D, bias=False)
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.up, self.down = nn.Linear(D, wide, bias=False), nn.Linear(wide, D, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        heads = self.qkv(self.norm_attention(x_BTD)).split(D, dim=2)
        q, k, v = (part.view(B, T, self.heads, D // self.heads).transpose(1, 2) for part in heads)
        mixed_BHTC = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.out(mixed_BHTC.transpose(1, 2).contiguous().view(B, T, D))
        return x_BTD + self.down(F.gelu(self.up(self.norm_feedforward(x_BTD))))


class GPT(nn.Module):
    """Learned positions, output matrix tied to the embedding."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.tokens = nn.Embedding(work.vocab, work.dim)
        self.places = nn.Embedding(work.length, work.dim)
        self.blocks = nn.ModuleList(Block(work) for _ in range(work.layers))
        self.norm = nn.LayerNorm(work.dim, bias=False)
        self.head = nn.Linear(work.dim, work.vocab, bias=False)
        self.head.weight = self.tokens.weight
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        x_BTD = self.tokens(ids_BT) + self.places(torch.arange(ids_BT.shape[1]))
        for block in self.blocks:
            x_BTD = block(x_BTD)
        logits_BTV = self.head(self.norm(x_BTD))
        return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


def run(work: Work, fused: bool = False) -> Timed:
    """nanoGPT leaves AdamW unfused on CPUs; `fused` gives it the faster one."""
    torch.manual_seed(0)
    model = GPT(work)
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=work.lr, betas=(0.9, 0.95), **({"fused": True} if fused else {}))
    began = []
    for step in range(work.total):
        began.append(time.perf_counter())
        for group in optimizer.param_groups:
            group["lr"] = work.lr * 0.5 * (1 + math.cos(math.pi * step / work.total))
        rows_BT = torch.from_numpy(work.rows(range(step * work.batch, (step + 1) * work.batch)))
        loss = model(rows_BT[:, :-1].contiguous(), rows_BT[:, 1:].contiguous())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    said = f"AdamW, {'fused' if fused else 'as torch chooses on a CPU'}"
    return Timed(tuple(began), sum(p.numel() for p in model.parameters()), said)
