from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def curve(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("tokens_per_second", "matmul_fraction")
    return [{name: value for name, value in row.items() if name not in timed} for row in rows]


def test_killed_at_any_moment_and_resumed_the_weights_are_the_same_bits(tmp_path: Path) -> None:
    driver = Path(__file__).with_name("kill_driver.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(driver), str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    endings = dict(line.split(": ") for line in done.stdout.splitlines())
    whole = [endings.pop(name) for name in ("uninterrupted", "last", "once more")]
    assert whole == ["status 0"] * 3, done.stderr
    # The moments are real time: a child that was quick enough may have finished before one of them.
    assert {how for name, how in endings.items() if name.startswith("os.")} == {"killed"}
    assert set(endings.values()) <= {"killed", "status 0"}
    for name in ("model.safetensors", "checkpoints/step-00000040/state.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    assert not list((tmp_path / "cut" / "checkpoints").glob(".*"))
