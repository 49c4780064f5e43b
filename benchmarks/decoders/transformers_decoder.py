"""transformers' `generate`: fp32 or bf16, with the default cache, a static one, or that compiled."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks.decoders.work import Decoded, Work


class Clock:
    """A streamer, which `generate` tells of every token."""

    def __init__(self) -> None:
        self.began, self.times, self.ids, self.prompt = time.perf_counter(), [], [], True

    def put(self, value: torch.Tensor) -> None:
        if not self.prompt:
            self.times.append(time.perf_counter() - self.began)
            self.ids.append(int(value.flatten()[0]))
        self.prompt = False

    def end(self) -> None: ...


def load(work: Work) -> Any:
    dtype = torch.bfloat16 if "bf16" in work.variant else torch.float32
    model = AutoModelForCausalLM.from_pretrained(work.folder, dtype=dtype).eval()
    model.generation_config.eos_token_id = None  # random weights may say the end at any time
    return model


def options(work: Work) -> dict[str, Any]:
    found: dict[str, Any] = {"do_sample": False, "pad_token_id": 0, "max_time": work.seconds}
    if "static" in work.variant:
        found["cache_implementation"] = "static"
    if "compiled" in work.variant:
        from transformers import CompileConfig

        found["compile_config"] = CompileConfig(fullgraph=False, mode="default")
        found["compile_config"]._compile_all_devices = True
    return found


@torch.inference_mode()
def run(work: Work, model: Any) -> Decoded:
    ids = torch.tensor([work.ids(model.config.vocab_size)])
    clock = Clock()
    model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=work.tokens, streamer=clock, **options(work)
    )
    return Decoded(clock.times, clock.ids)


@torch.inference_mode()
def batched(work: Work, model: Any) -> float:
    """Tokens of all rows per second, the prompts not counted."""
    ids = torch.tensor([work.ids(model.config.vocab_size, row) for row in range(work.batch)])
    seen: list[float] = []

    # A streamer is for one row alone; the time of each step is told by a criterion that never stops.
    def at(ids: torch.Tensor, scores: torch.Tensor, **rest: object) -> torch.Tensor:
        seen.append(time.perf_counter())
        return torch.zeros(len(ids), dtype=torch.bool)

    # Reading ten prompts alone may take longer than all of the single row.
    given = options(work) | {"max_time": 5 * work.seconds, "max_new_tokens": max(work.tokens // 8, 4)}
    model.generate(ids, attention_mask=torch.ones_like(ids), stopping_criteria=[at], **given)
    return work.batch * (len(seen) - 1) / (seen[-1] - seen[0])
