from __future__ import annotations

from pathlib import Path

import pytest

from conjure.core import json_files
from conjure.core.errors import ConjureError
from conjure.core.json_files import read_json


def test_what_is_there_without_what_is_null(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert read_json(path) == {}
    path.write_text('{"ü": [1], "b": null}', encoding="utf-8")
    assert read_json(path) == {"ü": [1]}


def test_what_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    for content, wrong in ((b"{", "no valid JSON"), (b"\xff", "no valid JSON"), (b"[1]", "got list")):
        path.write_bytes(content)
        with pytest.raises(ConjureError, match=wrong):
            read_json(path)
    path.write_bytes(b"[" * 200_000)
    with pytest.raises(ConjureError, match="no valid JSON"):
        read_json(path)
    monkeypatch.setattr(json_files, "MAX_BYTES", 1 << 10)
    with pytest.raises(ConjureError, match="at most"):
        read_json(path)
