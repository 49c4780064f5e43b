"""conjure: `compiled-int8` runs in compiled code, `torch-int8` in PyTorch."""

from __future__ import annotations

import os
import time

import torch

from benchmarks.decoders.work import Decoded, Work, decode


def load(work: Work):  # type: ignore[no-untyped-def]
    route, _, weights = work.variant.partition("-")
    if route == "torch":
        os.environ["CONJURE_NATIVE"] = "0"
    from conjure.models.language import LanguageModel

    return LanguageModel.load(work.folder, weights=weights).writer  # type: ignore[arg-type]


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
