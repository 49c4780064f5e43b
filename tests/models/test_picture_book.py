"""The book keeps pictures, and each patch of a canvas reads the part of a page that belongs there."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from conjure.core.seeds import normal, uniform
from conjure.models.picture_book import STEPS, PictureBook, PictureBookConfig, bilinear

CONFIG = PictureBookConfig(pages=5, channels=3, side=8, points=3, reach=1.25)
D, SIDE = 16, 4


def book(seed: int = 0) -> PictureBook:
    network = PictureBook(CONFIG, D, colours=4)
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters()):
            parameter.copy_(0.3 * normal([seed + k], parameter.shape)[0])
    for page in range(CONFIG.pages):
        network.write(page, picture(page))
    return network.requires_grad_(False)


def picture(page: int) -> Tensor:
    return normal([100 + page], (3, 8, 8))[0]


def boxes(*rows: tuple[float, float, float, float], colour: int = 0) -> Tensor:
    return torch.tensor([[(*row, colour) for row in rows]])


PAGES, SAID = torch.tensor([[-1, 2, -1, 4]]), normal([7], (4, D))


def test_a_page_comes_back_within_half_a_step() -> None:
    opened = book().open(torch.tensor([[3, 0]]))
    assert opened.shape == (1, 2, 64, 3) and opened.dtype == torch.float32
    for k, page in enumerate((3, 0)):
        assert (opened[0, k].T.reshape(3, 8, 8) - picture(page)).abs().max() <= 0.5 / STEPS + 1e-6


def test_what_is_too_large_is_clipped() -> None:
    network = book()
    network.write(1, torch.full((3, 8, 8), 9.0))
    network.write(2, torch.full((3, 8, 8), -9.0))
    assert network.table[1:3].unique().tolist() == [-127, 127]


def test_a_glance_is_the_mean_of_sixteen_regions() -> None:
    seen = book().glance(PAGES)
    assert seen.shape == (1, 4, 16 * 3) and (seen[0, [0, 2]] == 0).all()
    kept = book().open(torch.tensor(4)).T.reshape(3, 8, 8)
    expected = F.avg_pool2d(kept, 2).flatten(1).T.flatten()
    assert torch.allclose(seen[0, 3], expected, atol=1e-6)


def test_reading_between_cells_is_the_spatial_transformers() -> None:
    network = book()
    at_NP2 = uniform([3], (6, 9, 2))[0] * 12 - 2  # some outside
    page_N = torch.tensor([0, 1, 2, 3, 4, 0])
    made = bilinear(network.table, page_N[None], at_NP2[None], 8)[0]
    pages_NZSS = network.open(page_N).mT.reshape(6, 3, 8, 8)
    grid = (at_NP2 + 0.5) / 8 * 2 - 1
    expected = F.grid_sample(pages_NZSS, grid[:, None], align_corners=False, padding_mode="zeros")[:, :, 0].mT
    assert (made - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_only_patches_under_a_box_read() -> None:
    said = book()(PAGES, SAID, boxes((1, 0.25, 0.25, 0.5), (-1, 0.75, 0.75, 0.5)), SIDE)
    assert said.shape == (1, 16, D)
    read = (said[0].abs().sum(-1) > 0).view(4, 4)
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[:2, :2] = True
    assert torch.equal(read, expected)


def test_the_later_of_two_things_is_seen() -> None:
    first, second = (1, 0.5, 0.5, 1.0), (3, 0.25, 0.25, 0.5)
    network = book()
    both = network(PAGES, SAID, boxes(first, second), SIDE)[0].view(4, 4, D)
    alone = [network(PAGES, SAID, boxes(box), SIDE)[0].view(4, 4, D) for box in (first, second)]
    assert torch.allclose(both[:2, :2], alone[1][:2, :2]) and torch.allclose(both[2:], alone[0][2:])
    assert not torch.allclose(both[:2, :2], alone[0][:2, :2])


def test_a_thing_moved_by_whole_patches_is_read_alike() -> None:
    network = book()
    one = network(PAGES, SAID, boxes((1, 0.25, 0.25, 0.5)), SIDE)[0].view(4, 4, D)
    moved = network(PAGES, SAID, boxes((1, 0.75, 0.5, 0.5)), SIDE)[0].view(4, 4, D)
    assert torch.allclose(moved[1:3, 2:], one[:2, :2], atol=1e-5)


def test_what_is_read_is_the_page_and_what_is_said() -> None:
    network, box = book(), boxes((1, 0.5, 0.5, 1.0))
    read = network(PAGES, SAID, box, SIDE)
    network.write(4, picture(0))
    assert torch.equal(network(PAGES, SAID, box, SIDE), read), "page 4 is not named by token 1"
    assert (network(PAGES, SAID + 1, box, SIDE) - read).abs().max() > 1e-3
    network.write(2, picture(0))
    assert (network(PAGES, SAID, box, SIDE) - read).abs().max() > 1e-3


def test_a_new_book_has_not_learnt_its_colours() -> None:
    for network, differs in ((PictureBook(CONFIG, D, colours=4), False), (book(), True)):
        one, other = (network(PAGES, SAID, boxes((1, 0.5, 0.5, 1.0), colour=k), SIDE) for k in (0, 3))
        assert ((one - other).abs().max() > 1e-3) == differs


def test_no_thing_nothing_read() -> None:
    assert (book()(torch.full((1, 4), -1), SAID, boxes((-1, -1, -1, -1)), SIDE) == 0).all()


def test_flops() -> None:
    network, counter = book(), FlopCounterMode(display=False)
    with counter:
        network(PAGES, SAID, boxes((1, 0.5, 0.5, 1.0)), SIDE)
    assert counter.get_total_flops() == network.flops(batch=1, patches=16, length=4)


def test_a_side_that_four_does_not_divide() -> None:
    with pytest.raises(ValueError, match="a side that 4 divides, got 6"):
        PictureBookConfig(side=6)
