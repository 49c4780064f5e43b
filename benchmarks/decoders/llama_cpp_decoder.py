"""llama.cpp by its C interface, so that Python costs it next to nothing."""

from __future__ import annotations

import ctypes
import time

import llama_cpp as llama
import numpy as np

from benchmarks.decoders.work import Decoded, Work, decode


class Opened:
    """A model in a context for `rows` sequences."""

    def __init__(self, work: Work, rows: int = 1) -> None:
        llama.llama_log_set(_silent, ctypes.c_void_p(0))
        llama.llama_backend_init()
        self.model = llama.llama_model_load_from_file(work.folder.encode(), llama.llama_model_default_params())
        self.vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        self.context = None
        self.begin(work, rows)

    def begin(self, work: Work, rows: int = 1) -> None:
        """An empty context."""
        if self.context is not None:
            llama.llama_free(self.context)
        params = llama.llama_context_default_params()
        params.n_ctx = (work.prompt + work.tokens + 32) * rows
        params.n_batch = params.n_ubatch = max(512, work.prompt)
        params.n_seq_max = rows
        params.n_threads = params.n_threads_batch = work.threads
        self.context = llama.llama_init_from_model(self.model, params)
        self.batch = llama.llama_batch_init(max(512, work.prompt), 0, 1)

    def read(self, tokens: list[tuple[int, int, int]], wanted: list[int]) -> list[int]:
        """(id, position, row) each; the next ids after those that stand at `wanted`."""
        for at, (token, position, row) in enumerate(tokens):
            self.batch.token[at], self.batch.pos[at], self.batch.n_seq_id[at] = token, position, 1
            self.batch.seq_id[at][0], self.batch.logits[at] = row, at in wanted
        self.batch.n_tokens = len(tokens)
        if llama.llama_decode(self.context, self.batch):
            raise SystemExit("llama_decode failed")
        found = [llama.llama_get_logits_ith(self.context, at) for at in wanted]
        return [int(np.ctypeslib.as_array(logits, (self.vocab,)).argmax()) for logits in found]


@llama.llama_log_callback
def _silent(level: int, text: bytes, data: ctypes.c_void_p) -> None: ...


def load(work: Work) -> Opened:
    return Opened(work)


def run(work: Work, opened: Opened) -> Decoded:
    opened.begin(work)
    past = 0

    def read(ids: list[int]) -> int:
        nonlocal past
        (found,) = opened.read([(token, past + i, 0) for i, token in enumerate(ids)], [len(ids) - 1])
        past += len(ids)
        return found

    return decode(read, work.ids(opened.vocab), work)


def batched(work: Work, opened: Opened) -> float:
    """Tokens of all rows per second, the prompts not counted."""
    opened.begin(work, work.batch)
    rows = list(range(work.batch))
    last = []
    for row in rows:
        ids = work.ids(opened.vocab, row)
        last += opened.read([(token, i, row) for i, token in enumerate(ids)], [len(ids) - 1])
    steps, began = 0, time.perf_counter()
    while steps < work.tokens // 4 and time.perf_counter() - began < work.seconds / 2:
        last = opened.read([(token, work.prompt + steps, row) for row, token in zip(rows, last, strict=True)], rows)
        steps += 1
    return work.batch * steps / (time.perf_counter() - began)
