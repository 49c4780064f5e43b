"""Loads one program's network, then runs it once for every line on stdin, and answers each with a line of JSON.

`python -m benchmarks.painters PROGRAM WORK`, the second being a `Work` as JSON. The first line says when each stage was
over by `time.perf_counter`, which counts from the same moment in all processes of a machine.
"""

import time

STARTED = time.perf_counter()  # the first thing that Python does for us

import json  # noqa: E402
import sys  # noqa: E402


def main(program: str, given: str) -> None:
    """The program is imported only now: peers take long to import."""
    from benchmarks.painters.work import Work
    from benchmarks.processes import peak_memory

    work = Work(**json.loads(given))
    import torch

    torch.set_num_threads(work.threads)
    if program == "diffusers":
        from benchmarks.painters import diffusers_painter as painter
    else:
        from benchmarks.painters import conjure_painter as painter
    stages = {"interpreter": STARTED, "imports": time.perf_counter()}
    with torch.inference_mode():
        run = painter.load(work)
        print(json.dumps(stages | {"load": time.perf_counter()}), flush=True)
        for _ in sys.stdin:
            wall, cpu = time.perf_counter(), time.process_time()
            out = run()
            ended = time.perf_counter()
            print(json.dumps({
                "seconds": ended - wall, "cpu": time.process_time() - cpu, "ended": ended, "memory": peak_memory(),
                "sum": float(out.double().abs().sum()),
            }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
