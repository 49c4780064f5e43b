from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conjure.cli.main import call
from tests.core.stand_in_hub import REPO, StandInHub, serve

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def server(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    for name in ("CONJURE_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(workshop / "no-token"))
    with serve() as stand_in:
        monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
        yield stand_in


def test_get_says_what_comes_and_prints_the_folder(server: StandInHub, workshop: Path, capsys: Capture) -> None:
    assert call(["models", "get", REPO]) == 0
    said = capsys.readouterr()
    folder = workshop.parent / "cache" / "models--org--tiny" / "snapshots" / server.commit
    assert said.out == f"{folder}\n"
    assert f"{REPO} at commit {server.commit}: 4 files, 10.4 kB\n" in said.err
    assert "licence: apache-2.0" in said.err
    assert call(["models", "get", REPO]) == 0
    assert "10.4 kB of them here already" in capsys.readouterr().err


def test_get_tells_a_program(server: StandInHub, capsys: Capture) -> None:
    server.files |= {"tiny.Q4_K_M.gguf": b"GGUF"}
    assert call(["models", "get", REPO, "--gguf", "q4_k_m", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["revision"]) == (f"{REPO}/tiny.Q4_K_M.gguf", server.commit)
    assert Path(told["path"]).read_bytes() == b"GGUF"
    assert "model.safetensors" not in told["files"]


def test_list_show_and_the_other_list_agree(server: StandInHub, capsys: Capture) -> None:
    assert call(["models", "get", REPO]) == 0
    capsys.readouterr()
    said = []
    for line in (["models", "list"], ["list", "models"], ["models", "list", "--json"], ["list", "models", "--json"]):
        assert call(line) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and said[2] == said[3]
    assert REPO in said[0] and "apache-2.0" in said[0] and "starter/daub" in said[0]
    assert call(["models", "show", REPO]) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (shown["kind"], shown["task"], shown["licence"]) == ("llama", "text_to_text", "apache-2.0")
    assert shown["commit"] == server.commit and shown["folder"].endswith(server.commit)
    assert call(["models", "show", REPO, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["revision"] == server.commit


def test_remove_says_how_much_and_asks(server: StandInHub, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(["models", "get", REPO]) == 0
    capsys.readouterr()
    assert call(["models", "remove", REPO]) == 2
    said = capsys.readouterr().err
    assert "10.4 kB in" in said and "-y removes it" in said
    for answer, code in ((False, 2), (True, 0)):
        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        monkeypatch.setattr("click.confirm", lambda text, err, answer=answer: answer)
        assert call(["models", "remove", REPO]) == code
        assert ("left as it is" if code else "are free again") in capsys.readouterr().err
    assert call(["models", "get", REPO]) == 0
    assert call(["models", "remove", REPO, "-y"]) == 0
    capsys.readouterr()
    assert call(["models", "list", "--json"]) == 0
    assert REPO not in capsys.readouterr().out


def test_offline_gives_what_is_here(server: StandInHub, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(["models", "get", REPO]) == 0
    folder = capsys.readouterr().out
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    server.requests.clear()
    assert call(["models", "get", REPO]) == 0
    assert capsys.readouterr().out == folder and server.requests == []


def test_a_language_comes_with_its_adapter(
    server: StandInHub, capsys: Capture, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files |= {"adapter.deu.safetensors": b"German", "adapter.fra.safetensors": b"French"}
    assert call(["models", "get", REPO]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert not list(folder.glob("adapter.*"))
    assert call(["models", "get", REPO, "--language", "German", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each.name for each in folder.glob("adapter.*")] == ["adapter.deu.safetensors"]
    assert (folder / "adapter.deu.safetensors").read_bytes() == b"German"
    assert told["fetched"] == len(b"German") and "adapter.deu.safetensors" in told["files"]
    assert call(["models", "get", REPO, "--language", "de", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fetched"] == 0
    said = refused("models", "get", REPO, "--language", "Klingon")
    assert "does not know the language 'Klingon'" in said and "French" in said
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert call(["models", "get", REPO, "--language", "deu"]) == 0
    capsys.readouterr()
    assert "is here without French, and fetching" in refused("models", "get", REPO, "--language", "French")


def test_a_model_without_adapters(server: StandInHub, refused: Callable[..., str]) -> None:
    assert "has no files of languages" in refused("models", "get", REPO, "--language", "German")


@pytest.mark.parametrize(("arguments", "expected"), [
    (["get", "gpt2"], "expected a name on the hub"),
    (["get", "org/other"], "is not on"),
    (["show", "org/other"], "conjure models get org/other"),
    (["remove", "starter/daub"], "is not in"),
    (["get"], "Missing argument"),
])  # fmt: skip
def test_what_is_wrong_is_said(
    server: StandInHub, refused: Callable[..., str], arguments: list[str], expected: str
) -> None:
    assert expected in refused("models", *arguments)


def test_offline_and_not_here(workshop: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONJURE_OFFLINE", "1")
    assert "fetching is switched off" in refused("models", "get", "org/tiny")
