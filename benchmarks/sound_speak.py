"""How soon does a voice begin to speak, and how much faster than real time does it go on?

Every measurement is a new process; what it reads from disk is in the system's cache. The command is timed as a user
runs it, for one short sentence. A second process loads the voice by the Python interface, says a page, and notes when
the first sentence is there, and how long each part of the work took: words to phones, the encoder and durations, the
spectrogram (the flow), the vocoder. The real-time factor is the time of the work over that of the sound.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.processes import interleaved, ran, tell, threads_environment
from benchmarks.report import heading, spread, table, verdict

SENTENCE = "The kettle is on, and the rain has stopped."
PAGE = (
    "The old harbour lay quiet that morning. Two boats came in before eight o'clock, with nets full of herring, and "
    "the gulls followed them over the wall. A boy of nine or ten sat on a bollard and counted the baskets. When the "
    "last one was ashore he ran home, as fast as he could, to tell his grandmother that there would be fish for all. "
    "She put down her needles, looked at the clock, and laughed. \"Then we had better find the large pan,\" she said."
)  # fmt: skip
STAGES = ("text", "phones", "spectrogram", "vocoder")
FIRST, FASTER = 2.0, 3.0
"""Seconds to the first sound by the command, and how many times faster than real time speech is made, at least."""
PACKAGES = ("conjure", "torch", "numpy")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sound_speak", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=5, help="runs of everything (default 5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of every process (default all)")
    parser.add_argument("--model", default="starter/voice", metavar="NAME")
    parser.add_argument("--steps", type=int, default=4, help="of the flow (default 4)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    if asked.worker:
        print(json.dumps(worked(asked.model, asked.steps)))
        return 0
    rounds = 1 if asked.quick else asked.rounds
    with tempfile.TemporaryDirectory() as folder:
        found = interleaved({
            "command": partial(commanded, asked, Path(folder)), "page": partial(paged, asked),
        }, rounds, tell)  # fmt: skip
    pages = found["page"]
    said = {"model": asked.model, "threads": str(asked.threads), "steps of the flow": str(asked.steps),
            "sound": f"{pages[0]['sound']:.1f} s"}  # fmt: skip
    print(heading("Speaking", "sound_speak", arguments, packages=PACKAGES, facts=said))
    seconds = [each["seconds"] for each in found["command"]]
    rows = [("the command, one sentence into a file", spread(seconds))]
    rows += [(f"a page: {name}", spread([each[key] for each in pages])) for name, key in (
        ("imports", "imports"), ("the model is loaded", "load"), ("to its first sentence", "first"))]  # fmt: skip
    print(table(("from start to", "seconds"), rows))
    total = [each["work"] / each["sound"] for each in pages]
    rows = [(stage, spread([each[stage] / each["sound"] for each in pages], ".4f")) for stage in STAGES]
    print(table(("part of the work", "real-time factor"), [*rows, ("all", spread(total, ".4f"))]))
    print(verdict("first sound by the command, seconds", median(seconds), at_most=FIRST))
    print(verdict("times faster than real time", 1 / median(total), at_least=FASTER, form=".1f"))
    return 0


def commanded(asked: argparse.Namespace, folder: Path) -> dict[str, float]:
    """One short sentence by the command line, from the shell prompt to the file."""
    beside = shutil.which("conjure", path=str(Path(sys.executable).parent))
    program = [beside] if beside else [sys.executable, "-m", "conjure"]
    done = ran([*program, "make", SENTENCE, "-o", str(folder / "said.wav"), "-y", "--model", asked.model, "--seed",
                "1", "--steps", str(asked.steps)], threads_environment(asked.threads))  # fmt: skip
    return {"seconds": done.wall}


def paged(asked: argparse.Namespace) -> dict[str, float]:
    """A page by the Python interface, in a process of its own."""
    done = ran([sys.executable, "-m", "benchmarks.sound_speak", "--worker", "--model", asked.model, "--steps",
                str(asked.steps)], threads_environment(asked.threads))  # fmt: skip
    return json.loads(done.stdout)


def worked(model: str, steps: int) -> dict[str, float]:
    """Seconds of each part; `sound` is how long what was said lasts."""
    began = time.perf_counter()
    from conjure.core.events import Preview, Result
    from conjure.core.shelf import find
    from conjure.media.text import Text
    from conjure.tasks.speak import Speak, SpeakOptions

    imported = time.perf_counter()
    task = Speak.load(find(model))
    loaded = time.perf_counter()
    first = ended = loaded
    sound = 0.0
    for event in task.generate([Text(PAGE)], SpeakOptions(steps=steps), [1]):
        ended = time.perf_counter()
        if isinstance(event, Preview) and first == loaded:
            first = ended
        if isinstance(event, Result):
            sound = event.facts["results"][0]["duration"]
    stages = {name: getattr(task.speaker.stages, name) for name in STAGES}
    return {"imports": imported - began, "load": loaded - began, "first": first - began, "work": ended - loaded,
            "sound": sound, **stages}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
