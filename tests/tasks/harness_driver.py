"""Runs the LM Evaluation Harness on the tasks of a folder: all with its own model class, some with conjure's.

A process of its own: importing the harness takes seconds, seeds generators, and warns. No network: connecting raises.
FOLDER holds items/ and model/; own.json, adapter.json and scripted.json are written.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

SHOTS, RESAMPLES = 2, 2000


def refuse(*_: Any) -> None:
    raise OSError("this test may not reach the network")


def run(folder: Path) -> None:
    os.environ |= {
        "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "cache"), "DISABLE_MULTIPROC": "1",
        "TQDM_DISABLE": "1",
    }  # fmt: skip
    socket.socket.connect = refuse  # type: ignore[method-assign]
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import lm_eval
    import lm_eval.evaluator
    import lm_eval.utils
    import torch
    from examined import NAMES, read_subject, scripted, write_tasks
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from conjure.core.errors import ConjureError
    from conjure.tasks.harness_adapter import ConjureLM, _wanted

    for function in (torch.cos, torch.sin):  # as in conjure/nn/position.py: the first of two threads is not exact
        function(torch.ones(1))

    # What takes time and is not compared: a list of what is installed; each template is compiled for every item.
    lm_eval.evaluator.add_env_info = lambda results: None  # type: ignore[assignment]
    lm_eval.utils.env.from_string = functools.cache(lm_eval.utils.env.from_string)  # type: ignore[method-assign]
    tasks = folder / "tasks"
    write_tasks(tasks, folder / "items", Path(lm_eval.__file__).parent / "tasks")
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    place = folder / "model"
    subject = read_subject(place)
    runs: dict[str, tuple[Any, list[str]]] = {
        "own": (HFLM(pretrained=str(place), device="cpu", batch_size=4, dtype="float32"), list(NAMES)),
        "adapter": (ConjureLM(subject), ["arc_easy", "gsm8k", "lambada_openai", "wikitext"]),
        "scripted": (ConjureLM(scripted(subject)), ["gsm8k"]),
    }
    for whose, (model, names) in runs.items():
        found = lm_eval.simple_evaluate(
            model=model, tasks=names, task_manager=manager, num_fewshot=SHOTS, bootstrap_iters=RESAMPLES,
            log_samples=True,
        )  # fmt: skip
        assert found is not None
        kept = {"results": found["results"], "samples": found["samples"], "shots": found["n-shot"]}
        (folder / f"{whose}.json").write_text(json.dumps(kept, default=str))
    try:
        _wanted({"until": ["x"], "do_sample": True, "temperature": 0.8})
    except ConjureError:
        assert _wanted({"until": "x", "max_gen_toks": 3}) == (("x",), 3)
    else:
        raise AssertionError("sampling was not refused")


if __name__ == "__main__":
    run(Path(sys.argv[1]))
