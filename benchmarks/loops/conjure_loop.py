"""conjure's own loop: `conjure.train.loop.train` on the task that trains the story starter."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.loops.work import Timed, Work
from conjure.codecs.tokenizer import train_characters
from conjure.data.packing import Packed
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.position import Rope
from conjure.tasks.text_to_text import TextData, TextToText
from conjure.train.loop import Training, train


class Synthetic(TextToText):
    """The task as it is, but for where its rows come from, and for noting when each step asks for its loss."""

    def __init__(self, work: Work) -> None:
        self.work, self.began = work, []
        unseen = work.rows([10**6]).ravel()
        super().__init__(
            network(work), train_characters("a"), TextData(length=work.length),
            validation=Packed(unseen, [0, len(unseen)], work.length),
        )  # fmt: skip

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        rows_BT = torch.from_numpy(self.work.rows(indices))
        return {"ids": rows_BT[:, :-1].contiguous(), "targets": rows_BT[:, 1:].contiguous()}

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        self.began.append(time.perf_counter())
        return super().loss(batch, network)


def network(work: Work) -> Transformer:
    """The shapes of Llama: RMS norms before each layer, rotary positions, gated feed-forward, tied output."""
    torch.manual_seed(0)
    return Transformer(TransformerConfig(
        vocab=work.vocab, dim=work.dim, layers=work.layers, heads=work.heads, hidden=work.hidden,
        rope=Rope(dim=work.dim // work.heads),
    ))  # fmt: skip


def run(
    work: Work, optimizer: Literal["adamw", "muon"] = "adamw", precision: Literal["float32", "bfloat16"] = "float32"
) -> Timed:
    """As `conjure train` runs it, with nothing to save, preview or report between the steps."""
    task = Synthetic(work)
    config = Training(
        steps=work.total, batch=work.batch, optimizer=optimizer, lr=work.lr, threads=work.threads,
        precision=precision, log_every=10**9, checkpoint_minutes=0, device="cpu",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        train(task, config, Path(folder))
    parameters = sum(p.numel() for p in task.network.parameters())
    said = "AdamW, fused" if optimizer == "adamw" else "Muon for the blocks, fused AdamW for the rest"
    return Timed(tuple(task.began[: work.total]), parameters, said)
