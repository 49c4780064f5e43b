"""The network for four voices: what it may see, padding, and writing step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from conjure.codecs.chorale_tokens import HIDDEN, REST, START, TOKENS, VOICES
from conjure.core.errors import ConjureError
from conjure.core.seeds import drawing_weights, rng
from conjure.models.four_voices import BEATS_LEFT, FACTS, ORDER, SIZES, SPAN, FourVoices, FourVoicesConfig
from conjure.models.transformer import TransformerConfig
from conjure.nn.position import Rope

STACK = TransformerConfig(vocab=0, dim=32, layers=2, heads=2, qk_norm=True, rope=Rope(dim=16))
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def network() -> FourVoices:
    with drawing_weights(0):
        made = FourVoices(FourVoicesConfig(transformer=STACK, hidden=32, dropout=0.2)).eval()
    with torch.no_grad():  # what starts at zero would hide faults
        for k, parameter in enumerate(made.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(k)))
    return made


def batch(rows: int, steps: int, told: float, seed: int = 0) -> dict[str, Tensor]:
    draw = rng(seed)
    notes = draw.integers(0, TOKENS, (rows, steps, 4))
    known = np.where(draw.random(notes.shape) < told, notes, HIDDEN)
    facts = np.stack([draw.integers(0, size, (rows, steps)) for size in SIZES], -1)
    before = draw.integers(0, HIDDEN + 2, notes.shape)
    made = {"before_BTV": before, "told_BTV": known, "facts_BTF": facts, "notes_BTV": notes}
    return {name: torch.from_numpy(value) for name, value in made.items()} | {
        "scored_B": torch.full((rows,), told > 0), "counted_BT": torch.ones(rows, steps, dtype=torch.bool)
    }  # fmt: skip


def logits(network: FourVoices, given: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return network.logits(network.hidden(**given), given["before_BTV"])


def changed(given: dict[str, Tensor], name: str, where: tuple[int | slice, ...], to: int) -> dict[str, Tensor]:
    tensor = given[name].clone()
    tensor[where] = to
    return given | {name: tensor}


def test_the_loss_is_the_cross_entropy_of_what_was_not_told(network: FourVoices) -> None:
    given = batch(3, 7, 0.5)
    given["counted_BT"][1, 5:] = False
    asked = (given["told_BTV"] == HIDDEN) & given["counted_BT"][..., None]
    every = F.cross_entropy(logits(network, given).movedim(-1, 1), given["notes_BTV"], reduction="none")
    assert network(**given).item() == pytest.approx(float(every[asked].sum()), rel=1e-5)
    assert 0 < int(asked.sum()) < asked.numel()


def test_a_note_is_never_seen_before_it_is_said(network: FourVoices) -> None:
    given = batch(1, 6, 0.0)
    plain = logits(network, given)
    for place, voice in enumerate(ORDER):
        other = changed(given, "notes_BTV", (0, 3, voice), 1 + int(given["notes_BTV"][0, 3, voice]) % 40)
        moved = (logits(network, other) - plain).abs().amax(-1)[0] > 1e-4
        later = torch.zeros(6, 4, dtype=torch.bool)
        later[3, list(ORDER[place + 1 :])] = True  # what was before a step comes in as `before`
        assert torch.equal(moved, later)
    other = changed(given, "before_BTV", (0, 3), 5)
    moved = (logits(network, other) - plain).abs().amax(-1)[0] > 1e-5
    assert moved[3:].all() and not moved[:3].any()


def test_told_notes_are_seen_by_all_and_their_own_logits_by_none(network: FourVoices) -> None:
    given = changed(batch(1, 6, 0.3, seed=3), "told_BTV", (0, 5, 1), 7)
    other = changed(given, "told_BTV", (0, 5, 1), 9)
    assert ((logits(network, other) - logits(network, given)).abs().amax((-1, -2))[0] > 1e-5).all()
    without = given | {"scored_B": torch.tensor([False])}
    moved = (logits(network, changed(without, "told_BTV", (0, 5, 1), 9)) - logits(network, without)).abs()
    assert float(moved[0, :5].max()) == 0.0


def test_padding_and_neighbours_change_nothing(network: FourVoices) -> None:
    long, short, free = batch(1, 9, 0.5, 1), batch(1, 6, 0.5, 2), batch(1, 8, 0.0, 3)
    pad = {"before_BTV": HIDDEN, "told_BTV": HIDDEN, "facts_BTF": 0, "notes_BTV": 0, "counted_BT": 0}
    rows = []
    for each in (long, short, free):
        missing = 9 - each["notes_BTV"].shape[1]
        wide = {n: (0, 0) * (each[n].dim() - 2) + (0, missing) for n in pad}
        rows.append({n: F.pad(each[n].long(), wide[n], value=v) for n, v in pad.items()})
    together = {name: torch.cat([row[name] for row in rows]) for name in pad}
    together["counted_BT"] = together["counted_BT"].bool()
    together["scored_B"] = torch.tensor([True, True, False])
    found = logits(network, together)
    for row, each in enumerate((long, short, free)):
        alone = logits(network, each)
        T = alone.shape[1]
        assert float((found[row, :T] - alone[0]).abs().max()) <= TOLERANCE * float(alone.abs().max())
    total = sum(network(**each).item() for each in (long, short, free))
    assert network(**together).item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("told", [0.0, 0.4])
def test_step_by_step_is_the_same(network: FourVoices, told: float) -> None:
    given = batch(2, 8, told, seed=5)
    whole = logits(network, given)
    told_BTV, facts_BTF, notes_BTV = given["told_BTV"], given["facts_BTF"], given["notes_BTV"]
    with torch.no_grad():
        slots = network.writing(given["before_BTV"], told_BTV, facts_BTF)
        cache, at = network.cache(2, 16), torch.arange(8)
        first = slots[:, :3]
        if told:
            first, at = torch.cat([network.score(told_BTV, facts_BTF), first], 1), torch.cat([at, at])
        x_BD = network.step(first, at[: first.shape[1]], cache)
        for step in range(2, 8):
            known_BV = told_BTV[:, step] != HIDDEN
            for voice in ORDER:
                before_BV = given["before_BTV"][:, step]
                found = network.voice_logits(x_BD, before_BV, notes_BTV[:, step], known_BV, voice)
                assert float((found - whole[:, step, voice]).abs().max()) <= TOLERANCE * float(whole.abs().max())
                known_BV = known_BV | (torch.arange(4) == voice)
            if step < 7:
                x_BD = network.step(slots[:, step + 1 : step + 2], torch.tensor([step + 1]), cache)


def test_a_leap_is_said_wherever_the_voice_stands(network: FourVoices) -> None:
    """The logits are those of the pitch and of the leap from the last pitch, whatever leads to no pitch left out."""
    y_BTVD = torch.randn(1, 5, 4, 32, generator=torch.Generator().manual_seed(1))
    before_BTV = torch.tensor([1, 20, REST, START, TOKENS - 1])[None, :, None].expand(1, 5, 4)
    with torch.no_grad():
        found = network.logits(y_BTVD, before_BTV)
        for voice in range(4):
            pitch_TN, leap_TL = (
                y_BTVD[0, :, voice] @ table.weight.chunk(4)[voice].T for table in (network.out, network.leap)
            )
            for step, last in enumerate(before_BTV[0, :, voice].tolist()):
                for note in range(TOKENS):
                    both = note != REST and last != REST and last < TOKENS
                    leap = leap_TL[step, min(max(note - last, -SPAN), SPAN) + SPAN] if both else 0.0
                    expected = float(pitch_TN[step, note] + leap)
                    assert float(found[0, step, voice, note]) == pytest.approx(expected, abs=1e-4)


def test_voices_know_how_the_others_moved(network: FourVoices) -> None:
    """The table of moves alone: what the alto knows of the bass, looked up by hand."""
    before, now = torch.tensor([[[40, 33, 20, 13]]]), torch.tensor([[[42, 33, 20, 15]]])
    known = torch.zeros(4, 4)
    known[1, 3] = 1.0
    with torch.no_grad():
        found = network._moved(before, now, known)[0, 0]
        fifths = (33 - 13) % 12 * 17 + 2 + 8
        expected = network.moves.weight[fifths] + network.moves.weight[12 * 17 + (15 - 33) % 12]
        assert torch.allclose(found[1], expected, atol=1e-6) and not found[[0, 2, 3]].any()
        silent = network._moved(torch.full_like(before, START), now, known)[0, 0]
        assert torch.allclose(silent[1], 2 * network.moves.weight[-1], atol=1e-6)


def test_training_drops_and_use_does_not(network: FourVoices) -> None:
    given = batch(1, 6, 0.0)
    with torch.no_grad():
        torch.manual_seed(0)
        network.train()
        dropped = network(**given).item()
        network.eval()
        assert network(**given).item() == network(**given).item() != dropped


def test_sizes_and_work() -> None:
    assert len(FACTS) == len(SIZES) and SIZES[1] == BEATS_LEFT + 1 and sorted(ORDER) == list(range(len(VOICES)))
    network = FourVoices(FourVoicesConfig(transformer=STACK, hidden=32))
    assert network.flops(2, 10) < network.flops(2, 10, scored=True) < 3 * network.flops(2, 10)
    for stack in (TransformerConfig(vocab=5, dim=32), TransformerConfig(vocab=0, dim=32, heads=2)):
        with pytest.raises(ConjureError, match=r"model\.transformer"):
            FourVoicesConfig(transformer=stack)
    with pytest.raises(ConjureError, match="dropout"):
        FourVoicesConfig(dropout=1.0)
