from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from conjure.core.errors import ConjureError
from conjure.data.suite_rows import PARQUET, rows
from conjure.data.suites import SUITES

ARC, SMALL = SUITES["arc_easy"], SUITES["small_copa"]
LINES = [{"question": f"é{k}", "n": [k]} for k in range(3)]


def jsonl(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in LINES).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def parquet(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(LINES), path)
    return path


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONJURE_CACHE", "HF_HUB_CACHE", "CONJURE_DATA"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet", "a.json", "a.json.gz"])
def test_one_file_of_any_kind(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if ".jsonl" in name:
        jsonl(path)
    elif name.endswith(".parquet"):
        parquet(path)
    else:
        data = json.dumps(LINES).encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert rows(ARC, "test", path) == LINES


@pytest.mark.parametrize(
    "name",
    [
        "test.jsonl", "ARC-Easy/test.jsonl", "ARC-Easy/test-00000-of-00001.parquet", "ARC-Easy/test/0000.parquet",
        "data/test-00000-of-00001.parquet", "arc_easy/ARC-Easy/test.jsonl.gz", "ARC-Easy_test.jsonl",
    ],
)  # fmt: skip
def test_a_folder_as_the_hub_lays_it_out(tmp_path: Path, name: str) -> None:
    path = tmp_path / "sets" / name
    (parquet if name.endswith("parquet") else jsonl)(path)
    jsonl(tmp_path / "sets" / "testing.jsonl")
    assert rows(ARC, "test", tmp_path / "sets") == LINES
    with pytest.raises(ConjureError, match="no split 'validation' of arc_easy"):
        rows(ARC, "validation", tmp_path / "sets")


def test_parts_come_in_order(tmp_path: Path) -> None:
    for part in (1, 0):
        path = tmp_path / f"test-0000{part}-of-00002.jsonl"
        path.write_text(json.dumps({"part": part}) + "\n")
    assert rows(ARC, "test", tmp_path) == [{"part": 0}, {"part": 1}]


def test_data_sets_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jsonl(tmp_path / "conjure_data" / "arc_easy" / "test.jsonl")
    jsonl(tmp_path / "conjure_data" / "llm_eval_small" / "copa.jsonl.gz")
    assert rows(ARC, "test") == rows(SMALL, "test") == LINES
    with pytest.raises(ConjureError, match="holds no file svamp"):
        rows(SUITES["small_svamp"], "test")


def test_the_hubs_cache(tmp_path: Path) -> None:
    place = tmp_path / "hf_hub_cache" / "datasets--allenai--ai2_arc"
    commit = "0" * 40
    parquet(place / "snapshots" / commit / "ARC-Easy" / "test" / "0000.parquet")
    reference = place / "refs" / PARQUET
    reference.parent.mkdir(parents=True)
    reference.write_text(commit)
    assert rows(ARC, "test") == LINES
    with pytest.raises(ConjureError, match="has no ARC-Easy/train on this machine"):
        rows(ARC, "train")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="fetching is switched off") as caught:
        rows(ARC, "test")
    assert "--suite-file" in caught.value.hint and "arc_easy/test.jsonl" in caught.value.hint
    with pytest.raises(ConjureError, match="does not exist"):
        rows(ARC, "test", tmp_path / "gone")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a":'), ("a.jsonl", b"[1]\n"), ("a.json", b'{"a": 1}'), ("a.jsonl", b"\xff\xfe\x00"),
        ("a.jsonl.gz", b"no gzip"), ("a.parquet", b"PAR1 no"),
    ],
)  # fmt: skip
def test_broken_files(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConjureError, match=r"expected|no readable"):
        rows(ARC, "test", tmp_path / name)
