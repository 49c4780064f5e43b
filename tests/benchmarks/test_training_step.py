"""The loops do the work they claim, the same work, and it is counted right. Nothing here is timed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks import training_step
from benchmarks.loops import __main__ as loops
from benchmarks.loops import conjure_loop, plain, trainer
from benchmarks.loops.work import Work, seconds

TOY = training_step.SHAPES["toy"]


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
