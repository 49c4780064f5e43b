"""Loads one program, then runs it once for every line on stdin, and answers each with a line of JSON.

`python -m benchmarks.sound.worker WORK`, a `Work` as JSON. The first line that it writes says that it is ready.
"""

import contextlib
import importlib
import json
import sys
import time

from benchmarks.processes import peak_memory
from benchmarks.sound.work import Work

HEARERS = {"conjure": "conjure_hearer", "transformers": "transformers_hearer", "ctranslate2": "ctranslate_hearer",
           "librosa": "librosa_hearer"}  # fmt: skip


def main(given: str) -> None:
    """Each program is imported alone: what others weigh is not counted to it."""
    work = Work(**json.loads(given))
    inference: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if work.program in ("conjure", "transformers"):
        import torch

        torch.set_num_threads(work.threads)
        inference = torch.inference_mode()
    with inference:
        run = importlib.import_module(f"benchmarks.sound.{HEARERS[work.program]}").load(work)
        print(json.dumps({"ready": True}), flush=True)
        for _ in sys.stdin:
            wall, cpu = time.perf_counter(), time.process_time()
            done = run()
            took = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "memory": peak_memory()}
            print(json.dumps(took | done), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
