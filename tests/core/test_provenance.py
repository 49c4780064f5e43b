from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conjure.core.errors import ConjureError
from conjure.core.provenance import MAX_CHARACTERS, Record, digest, digest_file

RECORD = Record(
    version="0.1.0",
    task="text_to_image",
    model="starter/pictograms",
    weights="sha256:" + "ab" * 32,
    inputs=({"kind": "text", "text": "a red äpple 🍎", "digest": "sha256:00"},),
    options={"steps": 12, "guidance": 3.0, "negative": None, "stop": ["\n"]},
    seeds=(7, 8),
    index=1,
)


def test_json_is_one_sorted_line_of_ascii_without_time() -> None:
    text = RECORD.to_json()
    assert text.isascii()
    assert "\n" not in text
    assert list(json.loads(text)) == sorted(field.name for field in dataclasses.fields(Record))
    assert text == dataclasses.replace(RECORD).to_json()
    assert json.loads(text)["source_type"].endswith("/trainedAlgorithmicMedia")


def test_round_trip() -> None:
    assert Record.from_json(RECORD.to_json()) == RECORD
    assert Record.from_json(RECORD.to_json().encode()) == RECORD


_plain = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), _plain | st.lists(_plain), max_size=4), st.lists(st.integers(), max_size=3))
def test_any_options_and_seeds_come_back(options: dict[str, Any], seeds: list[int]) -> None:
    record = Record("1", "t", "m", "w", (), options=options, seeds=tuple(seeds))
    again = Record.from_json(record.to_json())
    assert again == record
    assert again.to_json() == record.to_json()


def test_seed_and_prompt() -> None:
    assert RECORD.seed == 8
    assert RECORD.prompt == "a red äpple 🍎"
    assert Record("1", "t", "m", "w", ()).seed is None
    assert Record("1", "t", "m", "w", ({"kind": "image", "name": "a.png", "digest": "d"},)).prompt == ""


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(RECORD.to_json()), **values})


def without(key: str) -> str:
    data = json.loads(RECORD.to_json())
    del data[key]
    return json.dumps(data)


HOSTILE = {
    "empty": "",
    "no json": "hello",
    "cut off": RECORD.to_json()[:-5],
    "null": "null",
    "number": "5",
    "list": "[]",
    "list of pairs": '[["task", "x"]]',
    "empty object": "{}",
    "missing key": without("task"),
    "unknown key": changed(colour="red"),
    "task is a number": changed(task=5),
    "task is null": changed(task=None),
    "seeds is a number": changed(seeds=5),
    "seeds are text": changed(seeds=["7", "8"]),
    "seeds are true": changed(seeds=[True, False]),
    "seeds are too few": changed(seeds=[7]),
    "index below": changed(index=-1),
    "inputs is text": changed(inputs="abc"),
    "inputs are text": changed(inputs=["abc"]),
    "input text is a list": changed(inputs=[{"text": ["a"]}]),
    "options is a list": changed(options=[1]),
    "deep": '{"options": ' * 50_000,
    "deep list": "[" * 100_000,
    "nan": RECORD.to_json().replace("3.0", "NaN"),
    "infinity": RECORD.to_json().replace("3.0", "-Infinity"),
    "huge number": RECORD.to_json().replace("12", "9" * 5000),
    "half a surrogate": changed(task="\ud800"),
    "half a surrogate key": changed(options={"\udfff": 1}),
    "huge": changed(task="x" * MAX_CHARACTERS),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_records_are_refused_plainly(name: str) -> None:
    with pytest.raises(ConjureError) as caught:
        Record.from_json(HOSTILE[name])
    assert len(str(caught.value)) < 1000


def test_bytes_that_are_no_utf8_are_refused() -> None:
    with pytest.raises(ConjureError):
        Record.from_json(b'{"task": "\xff"}')


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=40) | st.text(max_size=40))
def test_any_bytes_are_refused_plainly(data: bytes | str) -> None:
    with pytest.raises(ConjureError):
        Record.from_json(data)


def test_what_json_cannot_hold_is_refused_when_written() -> None:
    with pytest.raises(ConjureError, match="finite"):
        dataclasses.replace(RECORD, options={"guidance": float("inf")}).to_json()
    with pytest.raises(ConjureError, match="at most"):
        dataclasses.replace(RECORD, task="x" * MAX_CHARACTERS).to_json()


def test_index_must_point_at_a_seed() -> None:
    with pytest.raises(ConjureError, match="index 2"):
        dataclasses.replace(RECORD, index=2)


def test_digests(tmp_path: Path) -> None:
    empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest(b"") == empty
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    assert digest_file(tmp_path / "a") == digest(b"x" * 3_000_000) != empty
    for bad in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConjureError, match="could not be read"):
            digest_file(bad)
