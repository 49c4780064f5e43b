from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conjure.cli.main import call
from conjure.cli.serve import _bytes, serve, settled
from conjure.core.errors import ConjureError


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The process, its address, and what it said before that."""
    command = [sys.executable, "-m", "conjure", "serve", "--port", "0", *arguments]
    quiet = os.environ | {"CONJURE_HISTORY": "off"}
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=quiet)
    said, found = "", None
    with child:
        try:
            assert child.stderr is not None
            while found is None and (line := child.stderr.readline()):
                said += line
                found = re.search(r"serving at http://[^:]+:(\d+)/v1", line)
            assert found is not None, said
            yield child, f"http://127.0.0.1:{found[1]}", said
        finally:
            child.kill()


def test_it_serves_until_it_is_stopped() -> None:
    with started() as (child, url, said):
        with urllib.request.urlopen(f"{url}/v1/models") as answer:
            names = [each["id"] for each in json.load(answer)["data"]]
        assert "starter/chat" in names and "key" not in said
        child.send_signal(signal.SIGINT)
        assert child.wait(30) in (0, 130)


def test_others_need_the_key_that_is_printed_once() -> None:
    with started("--host", "0.0.0.0", "--no-history") as (_, url, said):
        key = re.search(r"this key: (\S+)", said)
        assert key is not None
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(f"{url}/v1/models")
        refused.value.close()
        asked = urllib.request.Request(f"{url}/v1/models", headers={"x-api-key": key[1]})
        with urllib.request.urlopen(asked) as answer:
            assert answer.status == 200


def test_sizes_and_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [_bytes(text) for text in ("4G", "512M", "1.5GiB", "100")] == [4 << 30, 512 << 20, 3 << 29, 100]
    with pytest.raises(ConjureError, match="a size such as"):
        _bytes("much")
    assert call(["serve", "--model", str(tmp_path)]) == 2 and "expected a model folder" in capsys.readouterr().err


def test_links_are_followed_only_where_that_is_said() -> None:
    def given(*words: str) -> frozenset[str]:
        context = serve.make_context("serve", list(words))
        return settled(**context.params).links_from

    assert given() == frozenset() and given("--fetch-links") == {"*"}
    assert given("--fetch-links=A.example, b.example", "--port", "9000") == {"a.example", "b.example"}
    assert given("--fetch-links", "--port", "9000") == {"*"}
