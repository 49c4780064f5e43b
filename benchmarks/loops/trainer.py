"""Hugging Face `Trainer` on `LlamaForCausalLM`: its defaults, but for logging and saving, which are off."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch

from benchmarks.loops.work import Timed, Work


class Rows(torch.utils.data.Dataset):
    """Rows as Trainer wants them; the model shifts the labels itself."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __len__(self) -> int:
        return self.work.total * self.work.batch

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids_T = torch.from_numpy(self.work.rows([index])[0, :-1])
        return {"input_ids": ids_T, "labels": ids_T}


def network(work: Work) -> Any:
    """The same network as `conjure_loop.network`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=work.vocab, hidden_size=work.dim, intermediate_size=work.hidden,
        num_hidden_layers=work.layers, num_attention_heads=work.heads, max_position_embeddings=work.length,
        rms_norm_eps=1e-6, tie_word_embeddings=True, use_cache=False,
    ))  # fmt: skip


def run(work: Work, bf16: bool = False) -> Timed:
    """`Trainer.train`, each step stamped by a callback at its beginning; `bf16` is its option of that name."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    began: list[float] = []

    class Stamp(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            began.append(time.perf_counter())

    model = network(work)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=work.batch, max_steps=work.total,
            learning_rate=work.lr, use_cpu=True, bf16=bf16,
            logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(model=model, args=arguments, train_dataset=Rows(work), callbacks=[Stamp()])
        trainer.train()
    fused = bool(trainer.optimizer.optimizer.defaults.get("fused"))
    said = f"AdamW ({arguments.optim.value}), {'fused' if fused else 'not fused'}"
    return Timed(tuple(began), sum(p.numel() for p in model.parameters()), said)
