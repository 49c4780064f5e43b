"""conjure: `compiled-int8` runs in compiled code, `torch-int8` in PyTorch."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch

from benchmarks.decoders.work import Decoded, Work, decode


def load(work: Work):  # type: ignore[no-untyped-def]
    from conjure.models.checkpoint import Checkpoint
    from conjure.models.compiled import Compiled
    from conjure.models.public.load import build

    route, _, weights = work.variant.partition("-")
    folder = Path(work.folder)
    given = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if route == "compiled":
        return Compiled(build(given, Checkpoint(folder), torch.bfloat16)[0], weights)  # type: ignore[arg-type]
    network = build(given, Checkpoint(folder), torch.float32 if weights == "fp32" else torch.bfloat16)[0]
    if weights in ("int8", "int4"):
        from conjure.nn.quantised import quantise

        network = quantise(network, weights)
    return network


@torch.inference_mode()
def run(work: Work, network) -> Decoded:  # type: ignore[no-untyped-def]
    prompt = work.ids(network.config.vocab)
    cache = network.cache(1, work.prompt + work.tokens)

    def read(ids: list[int]) -> int:
        return int(network(torch.tensor([ids]), cache=cache, last_only=True)[0, -1].argmax())

    return decode(read, prompt, work)


@torch.inference_mode()
def batched(work: Work, network) -> float:  # type: ignore[no-untyped-def]
    """Tokens of all rows per second, the prompts not counted."""
    ids = torch.tensor([work.ids(network.config.vocab, row) for row in range(work.batch)])
    cache, steps = network.cache(work.batch, work.prompt + work.tokens), 0
    last = network(ids, cache=cache, last_only=True)[:, -1].argmax(-1)
    began = time.perf_counter()
    while steps < work.tokens // 4 and time.perf_counter() - began < work.seconds / 2:
        last = network(last[:, None], cache=cache, last_only=True)[:, -1].argmax(-1)
        steps += 1
    return work.batch * steps / (time.perf_counter() - began)
