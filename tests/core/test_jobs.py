from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conjure.core.errors import ConjureError
from conjure.core.jobs import ATTEMPTS, Jobs

DATA = b"some picture"
DIGEST = hashlib.sha256(DATA).hexdigest()


def test_a_job_goes_its_way(tmp_path: Path) -> None:
    with Jobs(tmp_path) as jobs:
        jobs.add("one", '{"to": "image"}', {DIGEST: DATA})
        assert jobs.begin("one") and not jobs.begin("one")
        assert jobs.end("one", "done", results=[7, 8], links=["x"]) and not jobs.end("one", "cancelled")
        entry = jobs.get("one")
        assert entry is not None and (entry.state, entry.results, entry.links, entry.attempts) == (
            "done", (7, 8), ("x",), 1)  # fmt: skip
        assert entry.started is not None and entry.ended is not None and entry.created <= entry.started <= entry.ended
        jobs.add("two", "{}", {})
        assert [each.id for each in jobs.latest(5)] == ["two", "one"] and jobs.get("three") is None
        assert jobs.counts() == {"queued": 1, "running": 0, "done": 1, "failed": 0, "cancelled": 0}
    with Jobs(tmp_path) as jobs:  # written down
        assert jobs.file(DIGEST) == DATA and jobs.get("one") == entry


def test_files_go_with_the_last_job_that_came_with_them(tmp_path: Path) -> None:
    with Jobs(tmp_path) as jobs:
        for name in ("one", "two"):
            jobs.add(name, "{}", {DIGEST: DATA})
        assert jobs.delete("one") and jobs.file(DIGEST) == DATA
        assert jobs.delete("two") and not jobs.delete("two")
        with pytest.raises(ConjureError, match="input of this job is gone"):
            jobs.file(DIGEST)


def test_old_jobs_are_forgotten_and_those_that_wait_are_not(tmp_path: Path) -> None:
    with Jobs(tmp_path) as jobs:
        for name in "abcd":
            jobs.add(name, "{}", {})
        for name in "bcd":
            jobs.end(name, "failed", error={"message": "no"})
        jobs.prune(keep=2, seconds=1000)
        assert [each.id for each in jobs.latest(9)] == ["d", "c", "a"]
        jobs.prune(keep=2, seconds=-1)
        assert [each.id for each in jobs.latest(9)] == ["a"]


def test_jobs_of_the_living_are_left_alone_and_those_of_the_dead_adopted(tmp_path: Path) -> None:
    gone = Jobs(tmp_path)
    for name in ("worked", "waited", "tried"):
        gone.add(name, "{}", {})
    for name in ("worked", "tried"):
        assert gone.begin(name)
    with Jobs(tmp_path) as heir:
        assert heir.adopt() == []
        assert not heir.begin("waited"), "it belongs to another"
        gone.close()
        assert heir.adopt() == ["worked", "waited", "tried"] and heir.begin("tried")
    with Jobs(tmp_path) as heir:
        assert heir.adopt() == ["worked", "waited"], f"after {ATTEMPTS} attempts it is enough"
        entry = heir.get("tried")
        assert entry is not None and entry.state == "failed" and entry.error is not None
        assert f"ended {ATTEMPTS} times" in entry.error["message"] and entry.error["code"] == "interrupted"
        assert heir.begin("worked")
        heir.release()
        entry = heir.get("worked")
        assert entry is not None and (entry.state, entry.attempts) == ("queued", 1), "the attempt did not count"


KILLED = """
import sys, time
from pathlib import Path
from conjure.core.jobs import Jobs
jobs = Jobs(Path(sys.argv[1]))
jobs.add("it", "{}", {})
jobs.begin("it")
print("ready", flush=True)
time.sleep(60)
"""


def test_a_killed_process_leaves_its_job_to_the_next(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        with Jobs(tmp_path) as heir:
            assert heir.adopt() == []
            os.kill(child.pid, signal.SIGKILL)
            child.wait(20)
            assert heir.adopt() == ["it"]
            entry = heir.get("it")
            assert entry is not None and (entry.state, entry.attempts) == ("queued", 1)


def test_what_is_no_store_is_said(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite3").write_bytes(b"no database" * 100)
    with pytest.raises(ConjureError, match="not a database"):
        Jobs(tmp_path)
