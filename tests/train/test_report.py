from __future__ import annotations

from pathlib import Path

import pytest

from conjure.train.report import duration, keep_until


def test_metrics_after_the_checkpoint_and_half_lines_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10}\n{"step": 20}\n{"step": 30}\n{"ste')
    keep_until(path, 20)
    assert path.read_text() == '{"step": 10}\n{"step": 20}\n'
    keep_until(tmp_path / "none.jsonl", 20)
    assert not (tmp_path / "none.jsonl").exists()


@pytest.mark.parametrize(
    ("seconds", "text"), [(42.4, "42 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (59.6, "1 min 00 s")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
