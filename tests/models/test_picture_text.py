from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from conjure.core.seeds import normal
from conjure.models.picture_text import BOXES, PictureText, PictureTextConfig

CONFIG = PictureTextConfig(vocab=12, length=7, dim=16, layers=2, heads=2)
C = 32
WORDS = torch.tensor([[1, 5, 3, 6, 3, 0, 0], [1, 3, 7, 0, 0, 0, 0]])


def random(cell_values: int = C) -> PictureText:
    network = PictureText(CONFIG, cell_values)
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters()):
            parameter.copy_(0.3 * normal([k], parameter.shape)[0])
    return network.requires_grad_(False)


def seen() -> Tensor:
    return normal([1, 2], (7, C)) * (WORDS == 3).unsqueeze(-1)


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-5 * b.abs().max())


def test_shapes_and_mask() -> None:
    states, mask, summary = random()(WORDS, seen())
    assert (states.shape, summary.shape) == ((2, 7, 16), (2, 16))
    assert torch.equal(mask, WORDS != 0)


def test_padding_changes_nothing() -> None:
    network = random()
    states, _, summary = network(WORDS, seen())
    for b, length in ((0, 5), (1, 3)):
        alone, mask, own = network(WORDS[b : b + 1, :length], seen()[b : b + 1, :length])
        assert mask.all() and close(states[b, :length], alone[0]) and close(summary[b], own[0])


def test_the_order_of_words_matters() -> None:
    turned = WORDS.clone()
    turned[0, [1, 3]] = WORDS[0, [3, 1]]
    states, _, summary = random()(WORDS, seen())
    others, _, other = random()(turned, seen())
    assert (states[0] - others[0]).abs().max() > 1e-2 and (summary[0] - other[0]).abs().max() > 1e-2
    assert torch.equal(states[1], others[1])


def test_what_a_page_looks_like_matters_where_a_token_names_it() -> None:
    network, looks = random(), seen()
    states = network(WORDS, looks)[0]
    assert close(network(WORDS, torch.zeros_like(looks))[0], network(WORDS)[0])
    looks[0, 2] += 1
    assert (network(WORDS, looks)[0][0] - states[0]).abs().max() > 1e-2
    assert torch.equal(network(WORDS, looks)[0][1], states[1])


def test_layout_of_a_new_one_is_the_middle() -> None:
    network = random()
    assert network.places is not None and network.colours is not None
    states = network(WORDS, seen())[0]
    layout, colours = network.layout(states)
    assert layout.shape == (2, 7, BOXES, 4) and colours.shape == (2, 7, CONFIG.colours)
    raw = (states @ network.places.weight.T + network.places.bias).view(2, 7, BOXES, 4)
    assert close(layout[..., 0], raw[..., 0]) and close(layout[..., 1:], raw[..., 1:] / 4 + 0.5)
    assert close(colours, states @ network.colours.weight.T + network.colours.bias)
    network.places.weight.zero_()
    network.places.bias.zero_()
    assert (network.layout(states).boxes_BTK4[..., 1:] == 0.5).all()


def test_words_alone_need_no_book() -> None:
    names = {name for name, _ in random(0).named_parameters()}
    assert not any(part in name for part in ("glance", "places", "colours") for name in names)
    assert random(0)(WORDS)[0].shape == (2, 7, 16)


def test_flops() -> None:
    for values in (0, C):
        network, counter = random(values), FlopCounterMode(display=False)
        with counter, sdpa_kernel(SDPBackend.MATH):  # the fused kernel of CPUs is not counted
            states = network(WORDS, seen() if values else None)[0]
            if values:
                network.layout(states)
        assert counter.get_total_flops() == network.flops(batch=2)
