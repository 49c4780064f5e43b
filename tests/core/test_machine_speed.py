"""What the machine's speed decides, and the file that remembers it. No test here looks at a clock."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from conjure.core import machine_speed
from conjure.core.machine_speed import Speeds, best_dtype, quickest, remembered, without_mkldnn


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONJURE_CACHE", str(tmp_path))


class Probe:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, float]:
        self.calls += 1
        return {"fast": 1.5, "missing": math.inf}


def ask(probe: Probe) -> dict[str, float]:
    return remembered("test", ["fast", "missing"], probe)


def test_the_second_question_is_answered_from_the_file(tmp_path: Path) -> None:
    probe = Probe()
    assert ask(probe) == ask(probe) == {"fast": 1.5, "missing": math.inf}
    assert probe.calls == 1
    (file,) = (tmp_path / "speed").iterdir()
    assert file.name.startswith("test-")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\x00", b"[1]", b"{}", b'{"machine": {}, "figures": {"fast": 1, "missing": null}}',
        "figures:{}", 'figures:{"fast": "1", "missing": null}', 'figures:{"fast": -1, "missing": 1}',
        'figures:{"fast": true, "missing": 1}', 'figures:{"fast": NaN, "missing": 1}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_broken_file_is_measured_anew_and_mended(tmp_path: Path, content: bytes | str) -> None:
    probe = Probe()
    ask(probe)
    (path,) = (tmp_path / "speed").iterdir()
    if isinstance(content, str):
        machine = json.dumps(json.loads(path.read_bytes())["machine"])
        content = f'{{"machine": {machine}, "figures": {content.removeprefix("figures:")}}}'.encode()
    path.write_bytes(content)
    assert ask(probe) == {"fast": 1.5, "missing": math.inf}
    assert probe.calls == 2
    ask(probe)
    assert probe.calls == 2


def test_other_threads_are_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe()
    ask(probe)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 977)
    ask(probe)
    assert probe.calls == 2


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("CONJURE_CACHE", str(tmp_path / "file"))
    probe = Probe()
    assert ask(probe) == ask(probe)
    assert probe.calls == 2


@pytest.mark.parametrize(
    ("speeds", "dtype", "plain"),
    [
        (Speeds(100, 90, 50, 1000, 500), "bf16", True),
        (Speeds(100, 50, 90, 1000, 1200), "bf16", False),
        (Speeds(100, 50, 90, 1000, 1300), "fp32", False),  # a prompt would take too long
        (Speeds(100, 85, 90, 1000, 500), "fp32", False),  # hardly faster, and less exact
    ],
)
def test_the_type_follows_the_speeds(
    speeds: Speeds, dtype: str, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_speed, "_measure", lambda: speeds)
    assert best_dtype() == dtype and speeds.plain_decoding() == plain
    assert machine_speed.speeds() == speeds


def test_this_machine_can_be_measured() -> None:
    assert best_dtype() in ("bf16", "fp32")
    assert quickest(lambda: None) > 0


def test_mkldnn_is_off_inside_and_as_before_after() -> None:
    before = torch._C._get_mkldnn_enabled()
    with pytest.raises(ZeroDivisionError), without_mkldnn():
        assert not torch._C._get_mkldnn_enabled()
        raise ZeroDivisionError
    assert torch._C._get_mkldnn_enabled() == before
