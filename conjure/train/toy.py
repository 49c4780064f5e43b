"""The smallest thing that trains: a causal network that continues arithmetic progressions.

It satisfies `core.protocol.Trainable` in full: it shows what a task owes the loop, and trains in seconds.
Shape suffixes: B batch, T time, V vocabulary, D width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from conjure.core.files import write_atomic
from conjure.core.protocol import Medium
from conjure.core.seeds import derive, normal, rng

VOCABULARY = 16
IGNORED = -100


@dataclass(frozen=True)
class Figures:
    """A text medium, as small as can be."""

    text: str
    kind: str = "text"

    def save(self, path: str | Path) -> Path:
        write_atomic(path, self.text.encode())
        return Path(path)

    def digest(self) -> str:
        return f"sha256:{self.text}"


class Block(nn.Module):
    """Adds the mean of what came before, mixed by one matrix."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mix = nn.Linear(2 * dim, dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        h_BTD = self.norm(x_BTD)
        past_BTD = h_BTD.cumsum(1) / torch.arange(1, h_BTD.size(1) + 1)[:, None]
        return x_BTD + torch.tanh(self.mix(torch.cat([h_BTD, past_BTD], -1)))


class Network(nn.Module):
    def __init__(self, dim: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, dim)
        self.blocks = nn.ModuleList(Block(dim) for _ in range(depth))
        self.head = nn.Linear(dim, VOCABULARY)

    def forward(self, tokens_BT: Tensor, noise_BTD: Tensor | None = None) -> Tensor:
        x_BTD = self.embed(tokens_BT)
        if noise_BTD is not None:
            x_BTD = x_BTD + noise_BTD
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.head(x_BTD)


class Toy:
    """Example i: start and stride drawn from (seed, i). Some first targets carry no loss.

    How many differs from example to example, so that a mean of means would not be the mean.
    """

    sets = ()
    causal = True

    def __init__(self, seed: int = 0, *, dim: int = 16, depth: int = 2, length: int = 12) -> None:
        self.seed, self.dim, self.length = seed, dim, length
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "weights"))
            self.network = Network(dim, depth)

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        rows, targets, seeds = [], [], []
        for index in indices:
            draw = rng(derive(self.seed, "example", index))
            start, stride, hidden = (int(draw.integers(*span)) for span in ((0, VOCABULARY), (1, 4), (1, 6)))
            row = (start + stride * torch.arange(self.length + 1)) % VOCABULARY
            rows.append(row[:-1])
            targets.append(torch.where(torch.arange(self.length) < hidden, IGNORED, row[1:]))
            seeds.append(derive(self.seed, "noise", index))
        return {"tokens": torch.stack(rows), "targets": torch.stack(targets), "seeds": torch.tensor(seeds)}

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        noise_BTD = 0.1 * normal(batch["seeds"].tolist(), (self.length, self.dim))
        logits_BTV = (network or self.network)(batch["tokens"], noise_BTD)
        total = F.cross_entropy(logits_BTV.flatten(0, 1), batch["targets"].flatten(), reduction="sum")
        return total, (batch["targets"] != IGNORED).sum()

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        return self.network(batch["tokens"])

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return batch["tokens"].numel()

    def flops(self, batch: dict[str, Tensor]) -> float:
        return 6.0 * sum(p.numel() for p in self.network.parameters()) * batch["tokens"].numel()

    def describe(self, batch: dict[str, Tensor]) -> str:
        lines = []
        for row, targets in zip(batch["tokens"].tolist(), batch["targets"].tolist(), strict=True):
            pairs = zip(row, targets, strict=True)
            lines.append(" ".join(f"{t}" if target == IGNORED else f"{t}>{target}" for t, target in pairs))
        return "\n".join(lines)

    def preview(self, seed: int) -> dict[str, Medium]:
        batch = self.batch([seed])
        return {"continuation": Figures(" ".join(map(str, self.logits(batch)[0].argmax(-1).tolist())) + "\n")}

    @torch.no_grad()
    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        batch = self.batch(range(10**9, 10**9 + min(limit or 64, 64)))
        total, count = self.loss(batch)
        return {"loss": float(total / count)}

    def save(
        self,
        folder: Path,
        *,
        weights: dict[str, Tensor] | None = None,
        dtype: str = "float32",
    ) -> None:
        chosen = weights if weights is not None else dict(self.network.state_dict())
        kept = {name: tensor.to(getattr(torch, dtype)).contiguous() for name, tensor in chosen.items()}
        save_file(kept, folder / "model.safetensors")
        write_atomic(folder / "config.json", json.dumps({"format": 1, "kind": "toy"}).encode())
