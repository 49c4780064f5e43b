"""The benchmarks run, do the work they claim, and count it right. Nothing here is timed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import first_output, report, sampling, stamped, training_step
from benchmarks.loops import __main__ as loops
from benchmarks.loops import conjure_loop, plain, trainer
from benchmarks.loops.work import Work, seconds
from benchmarks.processes import Ended, interleaved, ran
from conjure.codecs.tokenizer import train_characters
from conjure.data.scene_graph import Scene, Thing
from conjure.media.image import Image
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.tasks.text_to_text import TextData, TextToText
from tests.data.shapes import shapes

TOY = training_step.SHAPES["toy"]


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


# -- the training step ------------------------------------------------------------------------------------


def test_the_operations_of_a_step_are_those_of_the_network() -> None:
    for work in (TOY, replace(TOY, layers=3, length=24, batch=5), Work(layers=1, dim=48, vocab=100)):
        ours, theirs = conjure_loop.network(work), plain.GPT(work)
        assert 3 * ours.flops(work.batch, work.length) == work.flops
        linear = [m.weight.numel() for m in theirs.modules() if isinstance(m, nn.Linear)]
        assert sum(linear) == work.matrices


def test_conjure_and_trainer_train_the_same_network() -> None:
    ours, theirs = conjure_loop.network(TOY), trainer.network(TOY)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in ours.parameters():
            nn.init.normal_(parameter, std=0.3)
    llama = theirs.model
    with torch.no_grad():
        llama.embed_tokens.weight.copy_(ours.embed.weight)
        llama.norm.weight.copy_(ours.norm.weight)
        for own, layer in zip(ours.blocks, llama.layers, strict=True):
            q, k, v = own.attention.qkv.weight.chunk(3)
            gate, up = own.feedforward.up.weight.chunk(2)
            attention, mlp = layer.self_attn, layer.mlp
            for target, source in (
                (attention.q_proj, q), (attention.k_proj, k), (attention.v_proj, v),
                (attention.o_proj, own.attention.out.weight),
                (mlp.gate_proj, gate), (mlp.up_proj, up), (mlp.down_proj, own.feedforward.down.weight),
                (layer.input_layernorm, own.norm_attention.weight),
                (layer.post_attention_layernorm, own.norm_feedforward.weight),
            ):  # fmt: skip
                target.weight.copy_(source)
        ids_BT = torch.from_numpy(TOY.rows([0, 1])[:, :-1])
        wanted_BTV, got_BTV = theirs(input_ids=ids_BT).logits, ours(ids_BT)
    assert (got_BTV - wanted_BTV).abs().max() <= 1e-5 * wanted_BTV.abs().max()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("name", ["conjure", "conjure-muon", "trainer", "plain", "plain-fused"])
def test_every_loop_takes_every_step(name: str) -> None:
    timed = loops.measure(name, TOY)
    assert len(timed.began) == TOY.total and list(timed.began) == sorted(timed.began)
    assert len(seconds(timed.began, TOY.discard)) == TOY.steps
    assert ("fused" in timed.optimizer) == (name != "plain")


def test_the_loops_see_the_same_rows() -> None:
    rows_NT = TOY.rows(range(2))
    ours, theirs = conjure_loop.Synthetic(TOY).batch(range(2)), trainer.Rows(TOY)
    for i in range(2):
        assert ours["ids"][i].tolist() == theirs[i]["input_ids"].tolist() == rows_NT[i, :-1].tolist()
        assert ours["targets"][i].tolist() == rows_NT[i, 1:].tolist()


def test_the_result_pairs_rounds_and_judges() -> None:
    def runs(*rates: float) -> list[training_step.Run]:
        return [training_step.Run(rate, 1e9, 2**30, 10**6, "AdamW", "float32") for rate in rates]

    some = {"conjure": runs(300, 900), "trainer": runs(100, 300), "plain": runs(300, 1000)}
    said = training_step.result(some, TOY)
    row = next(line for line in said.splitlines() if "Trainer" in line)
    assert "200 (100-300)" in row and "3.00 (3.00-3.00)" in row and "1.00 (1.00-1.00)" in row
    assert training_step.verdicts(some).splitlines() == [
        "PASS  tokens/s of conjure, AdamW / Hugging Face Trainer: 3.00 (at least 1.5)",
        "FAIL  tokens/s of conjure, AdamW / plain loop: 0.95 (at least 1)",
    ]


def test_the_command_runs_a_loop_in_a_process(capsys: pytest.CaptureFixture[str]) -> None:
    training_step.main(["--quick", "--loops", "plain"])
    said = capsys.readouterr().out
    assert "| plain loop |" in said and "matmul peak in float32" in said and "no verdict" in said


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
    said = first_output.first_result("token", runs)
    assert "| imports          | 0.75 |" in said and "| **the command**  | 1.50 |" in said
    assert "PASS  first token from the shell prompt, seconds: 1.50 (at most 2)" in said


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
    said = sampling.result(zip(settings, map(share, (0.7, 0.86, 0.82, 0.9)), strict=True))
    assert said.splitlines()[0].split("|")[2:4] == ["        4 evaluations ", "        8 evaluations "]
    assert "90.0 (85-95); 8 ev, 10 ms" in said
    assert "best: dpmpp_2m, 8 steps, guidance 1: 90.0 % at 8 network evaluations" in said
    assert said.endswith("cheapest whose interval reaches the best: euler, 8 steps, guidance 1: 86.0 % at 8 network evaluations")
