"""Runs one program with one model and prints what it measured, as JSON in the last line.

`python -m benchmarks.decoders PROGRAM WORK`, the second being a `Work` as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

from benchmarks.decoders.work import Work
from benchmarks.processes import peak_memory


def main(program: str, given: str) -> None:
    """The program is imported only now: peers take long to import and are not always there."""
    work = Work(**json.loads(given))
    if program == "llama.cpp":
        from benchmarks.decoders import llama_cpp_decoder as decoder
    else:
        import torch

        torch.set_num_threads(work.threads)
        if program == "transformers":
            from benchmarks.decoders import transformers_decoder as decoder
        else:
            from benchmarks.decoders import conjure_decoder as decoder
    network = decoder.load(work)
    if work.only_first:
        print(json.dumps({"ids": decoder.run(replace(work, tokens=1), network).ids}))
        return
    # What is compiled or allocated at first; torch.compile does so for each length of a static cache.
    decoder.run(work if "static" in work.variant else replace(work, tokens=4, prompt=8), network)
    done = decoder.run(work, network)
    memory = peak_memory()
    again = decoder.run(replace(work, tokens=2), network)  # reads the prompt once more: it is short
    print(json.dumps({
        "decode": done.rate, "prefill": work.prompt / min(done.times[0], again.times[0]), "memory": memory,
        "ids": done.ids[:8], "batch": decoder.batched(work, network) if work.batch else 0.0,
    }))  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
