"""Makes one thing in the stages of `conjure make`, and prints when each of them was over.

`python -m benchmarks.stamped KIND PROMPT MODEL FILE`: JSON of stage -> seconds of `time.perf_counter`, which counts
from the same moment in all processes of a machine.
"""

import time

STARTED = time.perf_counter()  # the first thing that Python does for us

import json  # noqa: E402
import sys  # noqa: E402


def main(kind: str, prompt: str, model: str, file: str) -> None:
    """The clock stops at the first token of a text, and at the written file of a picture."""
    from conjure.core.events import Delta, Result
    from conjure.media import write
    from conjure.tasks.make import load, plan, record, run

    ends = {"interpreter": STARTED}
    planned = plan(prompt, to=kind, model=model, seed=1)
    ends["imports"] = time.perf_counter()
    load(model)
    ends["load"] = time.perf_counter()
    pieces = 0
    for event in run(planned):
        pieces += isinstance(event, Delta)
        if pieces == 2:  # the first piece is the prompt
            break
        if isinstance(event, Result):
            ends["compute"] = time.perf_counter()
            write(event.media[0], file, record(planned, 0))
            ends["write"] = time.perf_counter()
    if kind == "text":
        ends["compute"] = time.perf_counter()
    print(json.dumps(ends))


if __name__ == "__main__":
    main(*sys.argv[1:])
