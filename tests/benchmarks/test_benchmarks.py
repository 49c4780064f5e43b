"""Tables, processes, the first output and sampling: they run, and count right. Nothing here is timed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import first_output, report, sampling, stamped
from benchmarks.processes import Ended, interleaved, ran
from conjure.codecs.tokenizer import train_characters
from conjure.data.scene_graph import Scene, Thing
from conjure.media.image import Image
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.tasks.text_to_text import TextData, TextToText
from tests.data.shapes import shapes

# -- tables -----------------------------------------------------------------------------------------------


def test_a_spread_is_the_median_and_both_ends() -> None:
    assert report.spread([3.0, 1.0, 2.0]) == "2.00 (1.00-3.00)"
    assert report.spread([1.5, 2.5], ".1f") == "2.0 (1.5-2.5)"
    assert report.spread([0.25], ".0%") == "25%"
    with pytest.raises(ValueError):
        report.spread([])


def test_ratios_and_differences_are_of_pairs() -> None:
    assert report.ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    assert report.differences([2.0, 9.0], [1.0, 3.0]) == [1.0, 6.0]
    with pytest.raises(ValueError):
        report.ratios([1.0], [1.0, 2.0])


def test_a_table_is_markdown() -> None:
    assert report.table(["loop", "s"], [["own", "1.0"], ["other's", "12.5"]]).splitlines() == [
        "| loop    |    s |",
        "| ------- | ---: |",
        "| own     |  1.0 |",
        "| other's | 12.5 |",
    ]


def test_verdicts() -> None:
    assert report.verdict("speed", 1.5, at_least=1.5) == "PASS  speed: 1.50 (at least 1.5)"
    assert report.verdict("speed", 1.49, at_least=1.5) == "FAIL  speed: 1.49 (at least 1.5)"
    assert report.verdict("wait", 0.3, at_most=0.25, form=".1f") == "FAIL  wait: 0.3 (at most 0.25)"


def test_the_heading_says_where_and_how() -> None:
    said = report.heading("T", "sampling", ["--model", "a b"], packages=["numpy", "no-such"], facts={"threads": "1"})
    assert "`python -m benchmarks.sampling --model 'a b'`" in said
    assert "numpy 2." in said and "no-such not installed" in said and "- threads: 1" in said


# -- processes --------------------------------------------------------------------------------------------


def test_runs_take_turns_and_begin_with_another_each_round() -> None:
    order: list[str] = []
    found = interleaved({name: lambda name=name: order.append(name) or len(order) for name in "abc"}, 2)
    assert "".join(order) == "abcbca"
    assert found == {"a": [1, 6], "b": [2, 4], "c": [3, 5]}


def test_a_process_is_run_to_its_end_with_its_environment() -> None:
    done = ran([sys.executable, "-c", "import os; print(os.environ['ANSWER'])"], {"ANSWER": "42"})
    assert done.stdout == "42\n" and done.cpu > 0 and done.wall > 0


def test_a_process_that_fails_ends_the_benchmark() -> None:
    with pytest.raises(SystemExit, match="no good"):
        ran([sys.executable, "-c", "raise SystemExit('no good')"])


# -- the first output -------------------------------------------------------------------------------------


@pytest.fixture
def story(tmp_path: Path) -> str:
    """A model that can write anything made of the letters of its prompt."""
    tokenizer = train_characters(first_output.STORY)
    network = Transformer(TransformerConfig(vocab=tokenizer.size, dim=16, layers=1, heads=1))
    TextToText(network, tokenizer, TextData(length=32)).save(tmp_path / "story")
    return str(tmp_path / "story")


def test_stages_are_from_border_to_border() -> None:
    first = first_output.staged(1.0, {"interpreter": 1.5, "imports": 4.0, "compute": 4.25}, cpu=2.0)
    assert first == first_output.First(3.25, 2.0, {"interpreter": 0.5, "imports": 2.5, "compute": 0.25})


def test_a_stamped_run_passes_every_stage_in_order(story: str, capsys: pytest.CaptureFixture[str]) -> None:
    stamped.main("text", first_output.STORY, story, "unused")
    ends = json.loads(capsys.readouterr().out)
    assert list(ends) == ["interpreter", "imports", "load", "compute"]
    assert list(ends.values()) == sorted(ends.values())


def as_command(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(first_output, "command", lambda: [sys.executable, "-c", code])


def test_the_first_token_is_what_comes_after_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"import time; print({first_output.STORY!r}, end='', flush=True); print(' it', flush=True); time.sleep(600)"
    as_command(monkeypatch, code)
    assert first_output.token("any", {}).seconds > 0  # it does not wait for the end


def test_a_command_that_writes_no_token_ends_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    as_command(monkeypatch, f"import sys; print({first_output.STORY!r}, end=''); print('why', file=sys.stderr)")
    with pytest.raises(SystemExit, match="no token:\nwhy"):
        first_output.token("any", {})


def test_start_up_is_counted_beyond_bare_python() -> None:
    said = first_output.startup_result({
        first_output.BARE: [Ended("", 0.2, 0.1), Ended("", 0.2, 0.2)],
        "conjure list": [Ended("", 0.5, 0.3), Ended("", 0.5, 0.6)],
    })  # fmt: skip
    assert "0.300 (0.200-0.400)" in said
    assert "FAIL  `conjure list`, seconds of CPU beyond bare Python: 0.300 (at most 0.25)" in said


def test_the_stages_and_the_command_stand_in_one_table() -> None:
    stages = [first_output.staged(0.0, {"interpreter": 0.25, "imports": 1.0}, 1.0)]
    runs = {"token, by stages": stages, "token, the command": [first_output.First(1.5, 2.5, {})]}
    said = " ".join(first_output.first_result("token", runs).split())
    assert "| imports | 0.75 |" in said and "| **the command** | 1.50 |" in said
    assert "PASS first token from the shell prompt, seconds: 1.50 (at most 2)" in said


def test_the_start_of_commands_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    first_output.main(["--quick", "--only", "start"])
    said = capsys.readouterr().out
    assert "| `conjure --help` |" in said and "`conjure list`, seconds of CPU beyond bare Python" in said


def test_an_unknown_model_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="unknown model 'starter/none'"):
        first_output.main(["--quick", "--only", "token", "--story-model", "starter/none"])


# -- sampling ---------------------------------------------------------------------------------------------


def test_steps_fit_the_evaluations() -> None:
    found = sampling.settings(["euler", "heun"], [4, 5], [1.0, 2.0])
    assert [(s.sampler, s.guidance, s.evaluations, s.steps, s.spent) for s in found] == [
        ("euler", 1.0, 4, 4, 4), ("euler", 1.0, 5, 5, 5), ("heun", 1.0, 4, 2, 3), ("heun", 1.0, 5, 3, 5),
        ("euler", 2.0, 4, 4, 8), ("euler", 2.0, 5, 5, 10), ("heun", 2.0, 4, 2, 6), ("heun", 2.0, 5, 3, 10),
    ]  # fmt: skip


def test_right_pictures_are_counted() -> None:
    names = {p.name.replace(":", ""): i for i, p in enumerate(shapes().pictograms)}

    def perfect(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image]:
        things = [max((name for name in names if name in prompt), key=len) for prompt in prompts]
        return [Image(shapes().paint(Scene("single", (Thing(names[t], 0.5, 0.5, 1.0),)))) for t in things]

    def wrong(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image]:
        return [image for image in perfect(["marble"], [0]) for _ in prompts]

    right = sampling.measured(perfect, shapes(), 5)
    assert (right.value, right.n) == (1.0, 15) and right.low < 1
    assert sampling.measured(wrong, shapes(), 18).value == 1 / 18


def test_the_cheapest_setting_as_good_as_the_best_is_named() -> None:
    def share(value: float) -> sampling.Share:
        return sampling.Share(value, value - 0.05, value + 0.05, 180, 0.01)

    settings = sampling.settings(["euler", "dpmpp_2m"], [4, 8], [1.0])
    said = sampling.result(zip(settings, map(share, (0.7, 0.86, 0.87, 0.9)), strict=True))
    header = [cell.strip() for cell in said.splitlines()[0].split("|")]
    assert header == ["", "right pictures, %", "4 evaluations", "8 evaluations", ""]
    assert "90.0 (85-95); 8 ev, 10 ms" in said
    *_, best, cheapest = said.splitlines()
    assert best == "best: dpmpp_2m, 8 steps, guidance 1: 90.0 % at 8 network evaluations"
    assert cheapest == (
        "cheapest whose interval reaches the best: dpmpp_2m, 4 steps, guidance 1: 87.0 % at 4 network evaluations"
    )
