"""The editor's two networks, squares out of maps, and the loss of a plan."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.models.dit import DiTConfig
from conjure.models.editor import (
    Drawer,
    Editor,
    EditorConfig,
    Matcher,
    Plan,
    Planner,
    PlannerConfig,
    Wanted,
    plan_loss,
    shrunk,
    squares,
    within_squares,
)

SIDES = (3, 5)
PLANNER = PlannerConfig(vocab=20, length=6, channels=3, size=8, patch=2, dim=16, layers=2, heads=2, keys=4, sides=SIDES)
DIT = DiTConfig(channels=3, size=8, patch=2, dim=16, layers=1, heads=2, hidden=32)


def given(length: int = 5, seed: int = 0) -> tuple[Tensor, ...]:
    """Words, glances, looks at two pages of which the second is not there, their tokens, and the picture."""
    draw = torch.Generator().manual_seed(seed)
    words = torch.randint(1, 20, (2, length), generator=draw)
    looks, spots = torch.randn(2, 2, 3, 8, 8, generator=draw), torch.tensor([[2, -1], [1, -1]])
    return words, torch.randn(2, length, 48, generator=draw), looks, spots, torch.randn(2, 3, 8, 8, generator=draw)


def test_padding_says_nothing() -> None:
    planner = Planner(PLANNER)
    words, glance, *rest = given()
    short = planner(words, glance, *rest)
    longer = torch.cat([words, torch.zeros(2, 1, dtype=torch.int64)], 1)
    padded = planner(longer, torch.cat([glance, torch.randn(2, 1, 48)], 1), *rest)
    for a, b in zip(short[:4], padded[:4], strict=True):
        torch.testing.assert_close(a, b[:, :5], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(short.cells_Bhw, padded.cells_Bhw, atol=1e-5, rtol=1e-5)


def test_maps_lie_as_the_picture_does() -> None:
    planner = Planner(PlannerConfig(**{**vars(PLANNER), "layers": 0}))  # without blocks no patch hears of another
    *told, source = given()
    other = source.clone()
    other[:, :, 2:4, 6:8] += 1
    plans = planner(*told, source), planner(*told, other)
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:4, 6:8] = True
    assert torch.equal((plans[0].cells_Bhw != plans[1].cells_Bhw).any(0), inside)
    reached = torch.tensor([bool(inside[y:y + s, x:x + s].any()) for x, y, s in squares(SIDES, 8)])
    for name in ("found_BTS", "wanted_BTS"):
        changed = (getattr(plans[0], name) - getattr(plans[1], name)).abs().amax((0, 1)) > 1e-6
        assert torch.equal(changed, reached), name


def test_a_page_counts_for_the_word_that_names_it() -> None:
    planner = Planner(PLANNER)
    words, glance, looks, spots, source = given()
    plans = [planner(words, glance, each, spots, source) for each in (looks, looks.flip(-1))]
    changed = (plans[0].found_BTS != plans[1].found_BTS).any(-1)
    assert changed.nonzero().tolist() == [[0, 2], [1, 1]]
    assert torch.equal(plans[0].wanted_BTS, plans[1].wanted_BTS)


def test_sums_within_squares() -> None:
    maps = torch.randn(2, 3, 8, 8)
    made = within_squares(maps, SIDES)
    assert len(squares(SIDES, 8)) == made.shape[-1] == 36 + 16
    for k, (x, y, s) in enumerate(squares(SIDES, 8)):
        torch.testing.assert_close(made[..., k], maps[..., y:y + s, x:x + s].sum((2, 3)) / s, atol=1e-5, rtol=1e-5)


def test_pages_are_shrunk_by_area() -> None:
    looks = torch.randn(1, 1, 2, 8, 8, dtype=torch.float64)
    fine = looks.repeat_interleave(3, -1).repeat_interleave(3, -2)  # 24 parts a side, 8 of them a cell of three
    torch.testing.assert_close(shrunk(looks, 3)[0, 0], torch.nn.functional.avg_pool2d(fine[0, 0], 8))
    torch.testing.assert_close(shrunk(looks, 8), looks)


def test_a_page_is_found_where_it_lies() -> None:
    matcher = Matcher(PLANNER)
    page = torch.randn(1, 1, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    every = squares(SIDES, 8)
    for x, y, s in ((0, 0, 3), (4, 2, 3), (3, 1, 5)):
        picture = torch.zeros(1, 3, 8, 8)
        picture[0, :, y:y + s, x:x + s] = shrunk(page, s)[0, 0]
        fit = matcher(page, picture)[0, 0]
        assert every[int(fit.argmax())] == (x, y, s)
        torch.testing.assert_close(fit.max(), torch.tensor(float(PLANNER.measures)).log())  # no difference at all


def test_fits_are_weighted_means_of_squares() -> None:
    matcher = Matcher(PLANNER)
    for k, parameter in enumerate(matcher.parameters()):
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(k))
    _, _, looks, _, source = given()
    fits, z = matcher(looks, source), PLANNER.channels
    for k, (x, y, s) in enumerate(squares(SIDES, 8)[::7]):
        page = shrunk(looks, s)[1, 0].permute(1, 2, 0)
        picture = source[1, :, y:y + s, x:x + s].permute(1, 2, 0)
        weight = torch.sigmoid(matcher.counts(page))
        away = (page.repeat(1, 1, 2) + matcher.page(page) - picture.repeat(1, 1, 2) - matcher.picture(picture))
        off = ((away * matcher.scale.flatten()).square() * weight / weight.sum()).sum((0, 1)).view(2, z).sum(1)
        wanted = torch.logsumexp(matcher.bias[:, SIDES.index(s)] - off, 0)
        torch.testing.assert_close(fits[1, 0, 7 * k], wanted, atol=1e-4, rtol=1e-4)


def test_the_drawer_starts_as_the_painter() -> None:
    drawer = Drawer(DIT)
    torch.nn.init.normal_(drawer.dit.to_pixels.weight)
    x, t = torch.randn(2, 3, 8, 8), torch.rand(2)
    told = torch.randn(2, 4, 16), torch.ones(2, 4, dtype=torch.bool), torch.randn(2, 16), torch.randn(2, 16, 16)
    draft, mask = torch.randn(2, 3, 8, 8), torch.ones(2, 8, 8)
    assert torch.equal(drawer(x, t, *told, draft, mask), drawer.dit(x, t, *told))
    torch.nn.init.normal_(drawer.draft.weight)
    with_draft = drawer(x, t, *told, draft, mask)
    assert not torch.allclose(with_draft, drawer(x, t, *told, draft, 0 * mask))
    assert not torch.allclose(with_draft, drawer(x, t, *told, 0 * draft, mask))


def test_the_editor_is_both() -> None:
    editor = Editor(PLANNER, DIT)
    x, t = torch.randn(1, 3, 8, 8), torch.rand(1)
    drawing = (torch.randn(1, 4, 16), torch.ones(1, 4, dtype=torch.bool), torch.randn(1, 16), torch.randn(1, 16, 16),
               torch.randn(1, 3, 8, 8), torch.ones(1, 8, 8))  # fmt: skip
    plan, out = editor(*given(), x, t, *drawing)
    assert torch.equal(plan.flags_BT3, editor.planner(*given()).flags_BT3)
    assert torch.equal(out, editor.drawer(x, t, *drawing))
    assert editor.planner.flops(2) == 2 * editor.planner.flops(1) > 0


def wanted() -> Wanted:
    token = torch.tensor([[2, -1], [1, 3]])
    flags = torch.tensor([[[1, 1, 0], [0, 0, 0]], [[1, 0, 0], [1, 1, 1]]]).float()
    cells = torch.zeros(2, 8, 8, dtype=torch.bool)
    cells[1, 0] = True
    found, wish = torch.tensor([[7, -1], [51, -1]]), torch.tensor([[9, -1], [-1, 0]])
    return Wanted(token, flags, torch.tensor([[4, 0], [0, 1]]), found, wish, torch.tensor([0, 3]), cells)


def sure(want: Wanted, words: Tensor) -> Plan:
    """What a planner that is certain and right says."""
    flags, colours = -50 * torch.ones(*words.shape, 3), torch.zeros(*words.shape, 9)
    found, wish = torch.zeros(*words.shape, 52), torch.zeros(*words.shape, 52)
    for b, k in itertools.product(range(2), range(2)):
        t = int(want.token_BK[b, k])
        if t >= 0:
            flags[b, t] = 100 * want.flags_BK3[b, k] - 50
            colours[b, t, want.colour_BK[b, k]] = 50
            found[b, t, want.found_BK[b, k]], wish[b, t, want.wanted_BK[b, k]] = 50, 50
    ground = 50.0 * torch.nn.functional.one_hot(want.ground_B, 10)
    return Plan(flags, colours, found, wish, ground, 100.0 * want.cells_Bhw - 50)


def test_a_sure_and_right_plan_costs_nothing_and_each_fault_something() -> None:
    words, want = given()[0], wanted()
    right = sure(want, words)
    torch.testing.assert_close(plan_loss(right, words, want), torch.zeros(2), atol=1e-6, rtol=0)
    for name in Plan._fields:
        wrong = plan_loss(right._replace(**{name: -getattr(right, name)}), words, want)
        assert wrong[1 if name == "cells_Bhw" else 0] > 1, name
    other = right._replace(cells_Bhw=-right.cells_Bhw, found_BTS=right.found_BTS.clone())
    other.found_BTS[0, 4] = torch.randn(52)  # a word that stands for nothing is not asked where it is
    assert plan_loss(other, words, want)[0] < 1e-6


def test_configs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConjureError, match="patch"):
        PlannerConfig(size=15)
    with pytest.raises(ConjureError, match="channels"):
        EditorConfig(dit=DIT)
    with pytest.raises(ConjureError, match="every"):
        EditorConfig(every=0)
