"""What every command shares, and the small ones: list, data, eval, recipes, doctor, completion."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from conjure.cli.main import COMMANDS, call, group
from conjure.core import paths
from conjure.data import catalogue

Capture = pytest.CaptureFixture[str]
Refused = Callable[..., str]


def command(*names: str) -> click.Command:
    found: click.Command = group
    for name in names:
        assert isinstance(found, click.Group)
        inner = found.get_command(click.Context(found), name)
        assert inner is not None, name
        found = inner
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_of_the_group_is_that_of_the_command(name: str) -> None:
    assert COMMANDS[name][1] == (command(name).help or "").splitlines()[0]


def every_command() -> list[tuple[str, ...]]:
    inner = [
        (name, each) for name in COMMANDS if isinstance(command(name), click.Group) for each in command(name).commands
    ]
    return [(), *((name,) for name in COMMANDS), *inner]


@pytest.mark.parametrize("names", every_command(), ids=" ".join)
def test_every_command_has_help_with_examples(names: tuple[str, ...], capsys: Capture) -> None:
    assert call([*names, "--help"]) == 0
    said = capsys.readouterr().out
    assert "Example" in said and f"conjure {' '.join(names)}".strip() in said


def test_the_list_is_a_matrix_of_media(workshop: Path, capsys: Capture) -> None:
    shutil.rmtree(workshop.parent / "starters" / "parrot")
    assert call(["list"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["from", "\\", "to", "text", "image"]
    assert lines[1] == ["text", "continue", "draw"]
    assert lines[2] == ["image", "-", "mirror"]
    installed = {line[0]: line[-1] for line in lines[5:]}
    assert installed == {"continue": "no", "draw": "yes", "mirror": "yes"}
    assert call(["list", "--json"]) == 0
    assert [edge["task"] for edge in json.loads(capsys.readouterr().out)] == ["continue", "draw", "mirror"]


def test_models_are_listed_with_their_licence(workshop: Path, capsys: Capture) -> None:
    assert call(["list", "models"]) == 0
    said = capsys.readouterr().out
    assert "starter/daub" in said and "CC0-1.0" in said and "a toy that can draw" in said
    assert call(["list", "models", "--json"]) == 0
    assert [model["task"] for model in json.loads(capsys.readouterr().out)] == ["draw", "continue"]


def test_data_sets_are_listed_found_and_missed(
    workshop: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setenv("CONJURE_OFFLINE", "1")
    assert "conjure data get tinyshakespeare" in refused("data", "path", "tinyshakespeare")
    assert "did you mean 'tinyshakespeare'?" in refused("data", "get", "tinyshakespear")
    assert "fetching is switched off" in refused("data", "get", "tinyshakespeare")
    place = workshop.parent / "sets"
    (place / "tinyshakespeare").mkdir(parents=True)
    monkeypatch.setenv("CONJURE_DATA", str(place))
    for line in (["data", "path", "tinyshakespeare"], ["data", "get", "tinyshakespeare"]):
        assert call(line) == 0
        assert capsys.readouterr().out == f"{place / 'tinyshakespeare'}\n"
    assert call(["list", "data", "--json"]) == 0
    listed = {entry["name"]: entry["path"] for entry in json.loads(capsys.readouterr().out)}
    assert listed["tinyshakespeare"] == str(place / "tinyshakespeare")
    assert list(listed) == [entry.name for entry in catalogue.CATALOGUE]
    assert call(["data", "list"]) == 0
    assert all(name in capsys.readouterr().out for name in ("tinyshakespeare",))


def test_eval_prints_figures_with_intervals(workshop: Path, capsys: Capture, refused: Refused) -> None:
    assert call(["eval", "starter/parrot", "--data", "a", "--data", "b"]) == 0
    said = capsys.readouterr().out
    for part in ("bits_per_byte", "1.25", "1 to 1.5", "10", "on ['a', 'b']"):
        assert part in said
    assert call(["eval", "starter/parrot", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"]["bits_per_byte"]["value"] == 1.25
    assert "did you mean 'starter/parrot'?" in refused("eval", "starter/parot")


def test_recipes_show_their_headers(
    workshop: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    folder = workshop.parent / "recipes"
    folder.mkdir()
    (folder / "toy.yaml").write_text("# about: a toy\n# minutes: 3\n# result: loss 1.5\ntask: toy\n")
    monkeypatch.setattr("conjure.train.recipe.recipes_dir", lambda: folder)
    assert call(["recipes"]) == 0
    assert capsys.readouterr().out == "toy\n  about    a toy\n  minutes  3\n  result   loss 1.5\n"
    assert call(["recipes", "toy"]) == 0
    assert "task: toy" in capsys.readouterr().out
    assert call(["recipes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["toy"]["result"] == "loss 1.5"
    assert "did you mean 'toy'?" in refused("recipes", "toyy")


def test_doctor_tells_what_is_missing(workshop: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conjure.core.device.matmul_rate", lambda dtype, device: 1e9)
    monkeypatch.setattr("conjure.cli.doctor.EXTRAS", {"no-such-package": "nothing"})
    shutil.rmtree(workshop.parent / "starters" / "parrot")
    assert call(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["missing"]["starter/parrot"] == "the default model of continue (text -> text)"
    assert said["missing"]["no-such-package"] == "nothing" and "starter/daub" not in said["missing"]
    assert said["places"]["starters"].startswith(str(paths.starters_dir()))
    assert said["machine"]["float32"] == "native" and "torch" in said["versions"]
    assert call(["doctor"]) == 0
    assert "starter/parrot" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_that_shell(shell: str, capsys: Capture, tmp_path: Path) -> None:
    assert call(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_CONJURE_COMPLETE" in script
    if shell == "bash":
        (tmp_path / "script").write_text(script)
        assert subprocess.run(["bash", "-n", tmp_path / "script"], check=False).returncode == 0


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("conjure rem", ["remake"]),
        ("conjure make x --model starter/d", ["starter/daub"]),
        ("conjure make x --task m", ["mirror"]),
        ("conjure make x --to i", ["image"]),
        ("conjure data path tiny", ["tinyshakespeare"]),
        ("conjure eval starter/", ["starter/daub", "starter/parrot"]),
    ],
)
def test_names_are_completed(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, line: str, completed: list[str]
) -> None:
    monkeypatch.setenv("_CONJURE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    with pytest.raises(SystemExit):
        call([])
    assert capsys.readouterr().out.split() == [f"plain,{name}" for name in completed]


def test_a_reader_that_goes_away_is_no_fault(workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def gone(text: str = "") -> None:
        raise BrokenPipeError

    monkeypatch.setattr("conjure.cli.listing.out", gone)
    monkeypatch.setattr("os.dup2", lambda *handles: None)
    assert call(["list"]) == 1
    assert "Traceback" not in capsys.readouterr().err
