"""Jobs: stored before they are answered, done after a kill too, followed by whoever comes late."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conjure.media import encode
from conjure.media.image import Image
from conjure.serve.settings import Limits, Settings
from tests.serve.running import running

APPLE = {"inputs": ["a red apple"], "to": "image", "seed": 3, "options": {"steps": 2}}
LONG = {"inputs": ["a cat"], "to": "image", "options": {"steps": 1000}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(Settings(history=tmp_path_factory.mktemp("history"))) as url:
        yield url


def ask(url: str, body: object = None, method: str | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        content = answer.read()
        return json.loads(content) if answer.headers["content-type"] == "application/json" else content


def refused(url: str, body: object = None, method: str | None = None) -> tuple[int, dict[str, Any]]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(url, body, method)
    with caught.value as error:
        return error.code, json.loads(error.read())["error"]


def events(url: str) -> list[tuple[str, Any]]:
    with urllib.request.urlopen(url, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        blocks = answer.read().decode().strip().split("\n\n")
    pairs = [block.split("\n") for block in blocks if not block.startswith(":")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in pairs]


def until(url: str, *states: str, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while (job := ask(url))["state"] not in states:
        assert time.monotonic() < end, job
        time.sleep(0.02)
    return job


def test_a_job_is_done_and_its_result_is_in_the_history(place: str) -> None:
    job = ask(f"{place}/v1/jobs", APPLE)
    assert job["id"].startswith("job_") and len(job["id"]) > 24 and job["wish"]["seed"] == 3
    done = until(f"{place}/v1/jobs/{job['id']}", "done")
    plainly = ask(f"{place}/v1/make", APPLE | {"history": False})
    assert ask(f"{place}{done['contents'][0]}") == base64.b64decode(plainly["outputs"][0]["b64"])
    assert done["attempts"] == 1 and done["progress"] == 1 and done["error"] is None
    assert ask(f"{place}/v1/history/{done['results'][0]}")["prompt"] == "a red apple"
    assert job["id"] in [each["id"] for each in ask(f"{place}/v1/jobs")["data"]]


def test_whoever_comes_late_hears_how_it_stands(place: str) -> None:
    first = ask(f"{place}/v1/jobs", {**APPLE, "options": {"steps": 25}})
    second = ask(f"{place}/v1/jobs", APPLE)
    until(f"{place}/v1/jobs/{first['id']}", "running")
    waited = events(f"{place}/v1/jobs/{second['id']}/events?previews=true")
    names = [name for name, _ in waited]
    assert names[0] == "queued" and waited[0][1] == {"position": 1}
    assert names[-1] == "finished" and waited[-1][1]["state"] == "done" and "progress" in names
    for job in (first, second):  # after the end
        ((name, told),) = events(f"{place}/v1/jobs/{job['id']}/events")
        assert name == "finished" and told["state"] == "done"


def test_a_job_can_be_cancelled_and_forgotten(place: str) -> None:
    job, waiting = ask(f"{place}/v1/jobs", LONG), ask(f"{place}/v1/jobs", LONG)
    running_one, queued = (f"{place}/v1/jobs/{each['id']}" for each in (job, waiting))
    until(running_one, "running")
    assert ask(queued, method="DELETE") == {"id": waiting["id"], "object": "job.deleted", "deleted": True}
    assert refused(queued)[0] == 404 and refused(f"{queued}/events")[0] == 404
    assert ask(f"{running_one}/cancel", method="POST")["state"] == "cancelled"
    end = time.monotonic() + 20
    while ask(f"{place}/health")["running"] and time.monotonic() < end:
        time.sleep(0.02)
    assert ask(f"{place}/health")["running"] == 0
    assert ask(f"{running_one}/cancel", method="POST")["state"] == "cancelled"
    assert events(f"{running_one}/events")[-1][1]["state"] == "cancelled"


def test_what_cannot_be_done_is_refused_at_once(place: str) -> None:
    for wish, param in (
        ({"inputs": [{"b64": "iVBORw0KGgo="}], "task": "cutout"}, "inputs[0]"),
        ({"inputs": ["x"], "to": "image", "model": "../etc"}, "model"),
        ({"inputs": [{"digest": "0" * 64}], "task": "cutout"}, "inputs[0]"),
        ({"inputs": ["x"], "to": "image", "options": {"colour": 1}}, None),
    ):
        status, error = refused(f"{place}/v1/jobs", wish)
        assert status in (400, 404) and error["param"] == param, wish
    assert refused(f"{place}/v1/jobs/..%2f..")[0] == 404


def test_only_so_many_jobs_wait_and_old_ones_are_forgotten(tmp_path: Path) -> None:
    with running(Settings(history=tmp_path, limits=Limits(jobs=1, jobs_kept=2))) as url:
        first = ask(f"{url}/v1/jobs", LONG)
        until(f"{url}/v1/jobs/{first['id']}", "running")
        second = ask(f"{url}/v1/jobs", APPLE)
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(f"{url}/v1/jobs", APPLE)
        with caught.value as error:
            assert error.code == 429 and error.headers["Retry-After"] == "30"
        ask(f"{url}/v1/jobs/{first['id']}/cancel", method="POST")
        until(f"{url}/v1/jobs/{second['id']}", "done")
        for _ in range(2):
            until(f"{url}/v1/jobs/{ask(f'{url}/v1/jobs', APPLE)['id']}", "done")
        assert refused(f"{url}/v1/jobs/{first['id']}")[0] == 404


def test_without_a_history_results_are_links() -> None:
    with running(Settings()) as url:
        job = ask(f"{url}/v1/jobs", APPLE)
        done = until(f"{url}/v1/jobs/{job['id']}", "done")
        assert done["results"] == [] and ask(f"{url}{done['contents'][0]}").startswith(b"\x89PNG")


SERVER = """
import sys
from pathlib import Path
from conjure.serve.settings import Settings
from tests.serve.running import running
with running(Settings(history=Path(sys.argv[1]))) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@contextmanager
def process(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server in a process of its own, which can be killed."""
    started = subprocess.Popen([sys.executable, "-c", SERVER, str(folder)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
                               env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    try:
        assert started.stdout is not None
        yield started.stdout.readline().strip(), started
    finally:
        started.kill()
        started.wait(20)
        for pipe in (started.stdin, started.stdout):
            assert pipe is not None
            pipe.close()


def test_a_killed_server_does_its_jobs_after_all(tmp_path: Path) -> None:
    """The server dies in the middle of one job, and another waits, which came with a picture. Both are done by the next
    one: the same bytes as without any of that."""
    pixels = np.full((48, 48, 3), 250, np.uint8)
    pixels[10:30, 10:30] = (200, 30, 40)
    picture = {"b64": base64.b64encode(encode(Image(pixels), ".png")).decode()}
    drawn = {"inputs": ["a red apple"], "to": "image", "options": {"steps": 25}}  # and no seed
    cut = {"inputs": [picture], "task": "cutout"}
    with process(tmp_path) as (url, server):
        ids = [ask(f"{url}/v1/jobs", wish)["id"] for wish in (drawn, cut)]
        until(f"{url}/v1/jobs/{ids[0]}", "running")
        server.send_signal(signal.SIGKILL)
        server.wait(20)
    with running(Settings(history=tmp_path)) as url:
        done = [until(f"{url}/v1/jobs/{each}", "done") for each in ids]
        assert [each["attempts"] for each in done] == [2, 1] and len(ask(f"{url}/v1/history")["data"]) == 2
        for job, wish in zip(done, (drawn, cut), strict=True):
            undisturbed = ask(f"{url}/v1/make", wish | {"seed": job["wish"]["seed"], "history": False})
            assert ask(f"{url}{job['contents'][0]}") == base64.b64decode(undisturbed["outputs"][0]["b64"])


def test_a_server_that_ends_in_peace_leaves_its_job_to_the_next(tmp_path: Path) -> None:
    with running(Settings(history=tmp_path)) as url:
        job = ask(f"{url}/v1/jobs", LONG)["id"]
        until(f"{url}/v1/jobs/{job}", "running")
    with running(Settings(history=tmp_path)) as url, running(Settings(history=tmp_path)) as other:
        taken = until(f"{url}/v1/jobs/{job}", "running")
        assert taken["attempts"] == 1
        assert ask(f"{other}/v1/jobs/{job}")["state"] == "running"  # and it is not done twice
        ask(f"{url}/v1/jobs/{job}/cancel", method="POST")
        assert events(f"{other}/v1/jobs/{job}/events")[-1][1]["state"] == "cancelled"
