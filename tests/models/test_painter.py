from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from conjure.core.errors import ConjureError
from conjure.core.seeds import normal, uniform
from conjure.models.dit import DiTConfig
from conjure.models.painter import Painter, PainterConfig, layout_loss, named_places
from conjure.models.picture_book import PictureBookConfig
from conjure.models.picture_text import BOXES, Layout, PictureTextConfig

TEXT = PictureTextConfig(vocab=12, length=6, dim=16, layers=1, heads=2)
BOOK = PictureBookConfig(pages=5, channels=3, side=8, points=2)
DIT = DiTConfig(channels=3, size=8, patch=2, dim=16, layers=1, heads=2, hidden=24)
WORDS = torch.tensor([[1, 5, 3, 6, 3, 0], [1, 6, 7, 0, 0, 0]])
PAGES = torch.tensor([[-1, -1, 2, -1, 4, -1], [-1] * 6])
THINGS = named_places(PAGES, [[(2, 0.25, 0.5, 0.5, 0), (4, 0.75, 0.5, 0.5, 1)], []])


def painter(book: PictureBookConfig = BOOK) -> Painter:
    network = Painter(TEXT, book, DIT)
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters()):
            parameter.copy_(0.3 * normal([k], parameter.shape)[0])
    if network.book is not None:
        for page in range(book.pages):
            network.book.write(page, normal([100 + page], (3, 8, 8))[0])
    return network.requires_grad_(False)


def test_places_are_given_to_the_tokens_that_name_them() -> None:
    places = [(4, 0.1, 0.2, 0.3, 1), (0, 0.9, 0.9, 0.9, 0), (2, 0.4, 0.5, 0.6, 2), (4, 0.7, 0.8, 0.9, 1)]
    twice = torch.tensor([[-1, 4, 2, 4]])
    things = named_places(twice, [places])
    assert things.shape == (1, BOXES, 5)
    expected = [[1, 0.1, 0.2, 0.3, 1], [2, 0.4, 0.5, 0.6, 2], [1, 0.7, 0.8, 0.9, 1]]
    assert torch.allclose(things[0, :3], torch.tensor(expected))
    assert (things[0, 3:] == -1).all()
    assert (named_places(twice, [places * 9])[0] >= 0).all(), "no more than there are boxes"


def test_a_page_changes_only_captions_that_name_it() -> None:
    network = painter()
    x, t = normal([0, 1], (3, 8, 8)), uniform([0, 1])
    out, layout = network(x, t, WORDS, PAGES, THINGS)
    assert network.book is not None
    network.book.write(3, normal([55], (3, 8, 8))[0])
    assert torch.equal(network(x, t, WORDS, PAGES, THINGS)[0], out), "nobody names page 3"
    network.book.write(2, normal([55], (3, 8, 8))[0])
    changed, moved = network(x, t, WORDS, PAGES, THINGS)
    assert torch.equal(changed[1], out[1]) and torch.equal(moved.boxes_BTK4[1], layout.boxes_BTK4[1])
    assert (changed[0] - out[0]).abs().max() > 1e-3 and (moved.boxes_BTK4[0] - layout.boxes_BTK4[0]).abs().max() > 1e-3


def test_a_painter_of_words_needs_no_book() -> None:
    network = painter(PictureBookConfig())
    nothing = torch.full((2, BOXES, 5), -1.0)
    out, layout = network(normal([0, 1], (3, 8, 8)), uniform([0, 1]), WORDS, torch.full((2, 6), -1), nothing)
    assert layout is None and out.shape == (2, 3, 8, 8)
    assert (network.guide(network.read(WORDS, PAGES), PAGES, nothing) == 0).all()


def test_boxes_are_laid_on_the_grid_where_the_text_puts_them() -> None:
    network = painter()
    context = network.read(WORDS, PAGES)
    layout = torch.full((2, 6, BOXES, 4), -9.0)
    layout[0, 2, 0] = torch.tensor([-9.0, 0.26, 0.51, 0.43])  # unused by its logit, but a name is drawn once
    layout[0, 4, 0] = torch.tensor([1.0, 0.74, 0.49, 0.44])
    layout[0, 4, 2] = torch.tensor([2.0, 0.5, 0.5, 7.0])
    layout[0, 3, 0] = torch.tensor([5.0, 0.5, 0.5, 0.5])  # names nothing
    colours = torch.zeros(2, 6, TEXT.colours)
    colours[0, 4, 7] = 1
    network.text.layout = lambda states: Layout(layout, colours)  # type: ignore[method-assign]
    things = network.arrange(context, PAGES, torch.zeros(2, 5, 2))
    assert things.shape == (2, 5, 5) and things[0, :3, 4].tolist() == [0, 7, 7]
    assert things[0, :3, 0].tolist() == [2, 4, 4] and (things[0, 3:, 0] == -1).all() and (things[1, :, 0] == -1).all()
    assert torch.allclose(things[0, :3, 3], torch.tensor([7, 7, 16]) / 16)
    corner = (things[0, :3, 1:3] - things[0, :3, 3:4] / 2) * 16
    assert torch.allclose(corner, corner.round(), atol=1e-5)
    assert (things[0, :2, 1:3] - torch.tensor([[0.26, 0.51], [0.74, 0.49]])).abs().max() <= 1 / 32 + 1e-6
    moved = network.arrange(context, PAGES, torch.full((2, 5, 2), 1 / 16))
    assert torch.allclose(moved[0, :3, 1:3], things[0, :3, 1:3] + 1 / 16, atol=1e-6)


def test_the_loss_of_a_layout() -> None:
    twice = named_places(PAGES, [[(4, 0.2, 0.3, 0.4, 3), (2, 0.5, 0.5, 0.5, 0), (4, 0.6, 0.7, 0.8, 3)], []])
    layout, colours = torch.zeros(2, 6, BOXES, 4), torch.zeros(2, 6, TEXT.colours)
    layout[..., 0] = -50
    colours[0, 4, 3] = colours[0, 2, 0] = 50
    for token, box, values in ((4, 0, (0.2, 0.3, 0.4)), (2, 0, (0.5, 0.5, 0.5)), (4, 1, (0.6, 0.7, 0.8))):
        layout[0, token, box] = torch.tensor([50, *values])

    def loss() -> Tensor:
        return layout_loss(Layout(layout, colours), PAGES, twice)

    assert loss().abs().max() < 1e-6
    layout[0, 4, 1, 1:] += torch.tensor([0.1, -0.2, 0.3])
    assert loss().tolist() == pytest.approx([4 * 0.6 / 3, 0], abs=1e-6)
    layout[0, 4, 1, 0] = 0  # undecided: one of the twelve boxes of two names costs ln 2
    assert loss()[0].item() == pytest.approx(0.8 + 0.6931472 / 12, abs=1e-6)
    colours[0, 2] = 0  # one of three things without a colour: ln 9
    assert loss()[0].item() == pytest.approx(0.8 + 0.6931472 / 12 + 2.1972246 / 3, abs=1e-6)
    colours[0, 2, 0] = 50
    layout[0, 3, 0, 0] = 50  # names nothing, so nobody minds
    assert loss()[0].item() == pytest.approx(0.8 + 0.6931472 / 12, abs=1e-6)


@pytest.mark.parametrize("book", [BOOK, PictureBookConfig()], ids=["book", "words"])
def test_flops(book: PictureBookConfig) -> None:
    network, counter = painter(book), FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):  # the fused kernel of CPUs is not counted
        network(normal([0, 1], (3, 8, 8)), uniform([0, 1]), WORDS, PAGES if book.pages else PAGES * 0 - 1, THINGS)
    assert counter.get_total_flops() == network.flops(batch=2)


def test_sizes_that_do_not_fit() -> None:
    PainterConfig(text=TEXT, book=BOOK, dit=DIT)
    with pytest.raises(ConjureError, match=r"text\.dim and dit\.dim must agree, got 192 and 16"):
        PainterConfig(book=BOOK, dit=DIT)
    with pytest.raises(ConjureError, match=r"channels and side, \(3, 8\), got \(16, 16\)"):
        PainterConfig(text=TEXT, book=PictureBookConfig(pages=2), dit=DIT)
    with pytest.raises(ConjureError, match=r"drop: expected a share from 0 to below 1, got 1\.0"):
        PainterConfig(text=TEXT, book=BOOK, dit=DIT, drop=1.0)
