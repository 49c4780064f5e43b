"""Quantised layers and networks beside their restored matrices; memory, files, and what is refused."""

from __future__ import annotations

import copy
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.nn import packed
from conjure.nn.calibration import gptq
from conjure.nn.linear import Linear
from conjure.nn.packed import Choice, available
from conjure.nn.quantised import (
    QuantisedEmbedding,
    QuantisedLinear,
    by_rows,
    from_state,
    make_room,
    prepare,
    project,
    quantise,
    quantised,
)
from conjure.nn.rounding import Weights, restored, rounded

DRAW = torch.Generator().manual_seed(0)
KERNELS = Choice("w8a8", "int4", 8)
FORMS: list[tuple[Weights, int]] = [("int8", 32), ("int8", 0), ("int4", 32)]


class Tiny(nn.Module):
    """An embedding, two layers of which one is used twice, and the head tied to the embedding."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, width)
        last = nn.Sequential(Linear(96, width, bias=False), nn.LayerNorm(width))
        self.blocks = nn.ModuleList([Linear(width, 96), last])
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.blocks[0](self.embed(ids))
        x = self.blocks[1](x)  # not a loop over both, which would hold a layer that is taken out
        return project(self.embed, self.norm(x))


def tiny(width: int = 64) -> Tiny:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Tiny(width).requires_grad_(False).eval()


def layer(inputs: int = 64, outputs: int = 48) -> Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return Linear(inputs, outputs)


IDS = torch.arange(40).view(2, 20)


# ---- one layer


@pytest.mark.parametrize(("weights", "group"), FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_multiplies_by_the_restored_matrix(weights: Weights, group: int, dtype: torch.dtype) -> None:
    linear = layer()
    small = quantised(linear, weights, group)
    x = torch.randn(2, 5, 64, generator=DRAW).to(dtype)
    want = F.linear(x, small.weight.to(dtype), linear.bias.detach().to(dtype))
    got = small(x)
    assert got.dtype == dtype and got.shape == (2, 5, 48)
    assert (got - want).abs().max() <= (1e-5 if dtype == torch.float32 else 1e-2) * want.abs().max()
    assert (want.float() - linear(x.float())).norm() <= (0.15 if weights == "int4" else 0.02) * want.float().norm()


@pytest.mark.parametrize(
    ("weights", "group", "route"), [("int8", 0, "w8a8"), ("int8", 0, "int8"), ("int4", 32, "int4")]
)
@pytest.mark.parametrize("rows", [1, 5, 70])
def test_kernels_give_what_the_restored_matrix_gives(
    weights: Weights, group: int, route: packed.Route, rows: int
) -> None:
    linear = layer()
    small, plain = quantised(linear, weights, group), quantised(linear, weights, group)
    small.use(route, many=64)
    assert small.route == (route if available(route) else "restore")
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(rows, 64, generator=DRAW).to(dtype)
        want = plain(x)
        got = small(x)
        assert got.dtype == dtype
        assert (got - want).abs().max() <= 0.02 * want.abs().max()
    assert torch.equal(small.weight, plain.weight)
    small.use("restore")
    assert torch.equal(small(x), want)


def test_gradients_reach_the_input_whatever_the_kernel() -> None:
    small = quantised(layer(), "int8", 0)
    x = torch.randn(3, 64, generator=DRAW, requires_grad=True)
    want = torch.autograd.grad(small(x).square().sum(), x)[0]
    small.use("w8a8")
    assert torch.allclose(torch.autograd.grad(small(x).square().sum(), x)[0], want)


def test_a_kernel_that_cannot_take_the_matrix_leaves_it_stored() -> None:
    for small, route in (
        (quantised(layer(), "int8", 32), "w8a8"),
        (quantised(layer(), "int8", 0), "int4"),
        (quantised(layer(), "int4"), "w8a8"),
        (quantised(layer(72), "int8", 0), "int8"),  # the kernel reads 16 inputs at a time, and does not check
        (quantised(layer(48), "int4", 16), "int4"),
    ):
        small.use(route)
        assert small.route == "restore" and small.q is not None


def test_groups_become_rows_with_little_loss() -> None:
    linear = layer()
    small = quantised(linear, "int8", 32)
    small.by_rows()
    q, scale = small.stored()
    assert scale.shape == (48, 1) and q.shape == (48, 64)
    assert ((small.weight - linear.weight).abs() <= scale.float() * 1.01).all()


# ---- networks


@pytest.mark.parametrize(("weights", "group"), FORMS)
@pytest.mark.parametrize("embeddings", [None, "int8", "int4"])
def test_a_network_is_quantised_in_place(weights: Weights, group: int, embeddings: Weights | None) -> None:
    network, reference = tiny(), tiny()
    if embeddings == "int4" and group == 0:
        group = 32
    assert quantise(network, weights, group=group, embeddings=embeddings) is network
    kinds = [type(module) for module in network.modules()]
    assert kinds.count(QuantisedLinear) == 2 + (embeddings is not None) and nn.Linear not in kinds
    assert isinstance(network.embed, QuantisedEmbedding if embeddings else nn.Embedding)
    for name, module in network.named_modules():  # the same network with what the small matrices stand for
        if isinstance(module, QuantisedLinear):
            reference.get_submodule(name.removesuffix(".table")).weight.data = module.weight
    want = reference(IDS)
    assert (network(IDS) - want).abs().max() <= 1e-5 * want.abs().max()
    assert torch.equal(network.embed(IDS), reference.embed(IDS))

    prepare(network, KERNELS)
    assert (network(IDS) - want).abs().max() <= 0.03 * want.abs().max()
    assert torch.equal(network.embed(IDS), reference.embed(IDS))


def test_a_tied_head_in_4_bits_reads_one_table() -> None:
    network = quantise(tiny(), "int4", embeddings="int4")
    assert isinstance(network, Tiny) and isinstance(network.embed, QuantisedEmbedding)
    prepare(network, KERNELS)
    assert network.embed.table.route == ("int4" if available("int4") else "restore")
    assert len([name for name in network.state_dict() if name.startswith("embed")]) == 2
    x = torch.randn(3, 64, generator=DRAW)
    want = x @ network.embed.weight.T
    assert (project(network.embed, x) - want).abs().max() <= 0.02 * want.abs().max()


def test_no_float_matrix_and_no_second_copy_remains() -> None:
    for weights, group, bits in (("int8", 32, 8.5), ("int8", 0, 8.5), ("int4", 32, 4.5)):
        network = quantise(tiny(), weights, group=group, embeddings=weights if group else "int8")
        matrices = [m for m in network.modules() if isinstance(m, QuantisedLinear)]
        elements = sum(m.in_features * m.out_features for m in matrices)
        held = sum(t.untyped_storage().nbytes() for m in matrices for t in (m.q, m.scale) if t is not None)
        assert held <= elements * bits / 8
        assert not [p for p in network.parameters() if p.dim() > 1]
        prepare(network, KERNELS)
        for module in matrices:
            assert (module.packed is None) == (module.q is not None)
            if isinstance(module.packed, packed.Int4):
                assert module.packed.q.nbytes <= (module.out_features + 63) * module.in_features / 2


@pytest.mark.parametrize("calibration", [None, [IDS]])
def test_each_float_matrix_is_let_go_before_the_next_is_rounded(
    calibration: list[Tensor] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tiny()
    matrices = {name: weakref.ref(module) for name, module in network.named_modules() if isinstance(module, Linear)}
    order: list[int] = []
    original = gptq if calibration else rounded

    def counted(matrix: Tensor, *rest: Any, **options: Any) -> tuple[Tensor, Tensor]:
        order.append(sum(each() is not None for each in matrices.values()))
        return original(matrix, *rest, **options)

    name = "conjure.nn.calibration.gptq" if calibration else "conjure.nn.quantised.rounded"
    monkeypatch.setattr(name, counted)
    quantise(network, "int8", calibration=calibration)
    assert order == [2, 1]


def test_skip_leaves_what_it_names() -> None:
    network = quantise(tiny(), "int8", skip=("blocks.1.*",), embeddings="int8")
    assert isinstance(network.blocks[0], QuantisedLinear)
    assert isinstance(network.get_submodule("blocks.1.0"), Linear)
    network = quantise(tiny(), "int8", skip=("blocks", "embed"), embeddings="int8")
    assert not [m for m in network.modules() if isinstance(m, QuantisedLinear)]


def test_a_layer_in_two_places_stays_one() -> None:
    network = tiny()
    network.again = network.blocks[0]
    quantise(network, "int4")
    assert network.again is network.blocks[0] and isinstance(network.again, QuantisedLinear)


def test_casting() -> None:
    network = quantise(tiny(), "bf16", skip=("embed",))
    assert network.blocks[0].weight.dtype == torch.bfloat16 and network.embed.weight.dtype == torch.float32  # type: ignore[union-attr]
    assert network.norm.weight.dtype == torch.float32  # type: ignore[union-attr]
    assert quantise(network, "fp32").blocks[0].weight.dtype == torch.float32  # type: ignore[union-attr,index]


# ---- files and copies


@pytest.mark.parametrize(("weights", "group"), FORMS)
@pytest.mark.parametrize("prepared", [False, True])
def test_saved_and_loaded_bit_for_bit(tmp_path: Path, weights: Weights, group: int, prepared: bool) -> None:
    network = quantise(tiny(), weights, group=group, embeddings="int8")
    stored = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    if prepared:
        prepare(network, KERNELS)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    assert {"blocks.0.q", "blocks.0.scale", "blocks.0.bias", "embed.table.q", "embed.table.scale"} <= set(stored)
    loaded = from_state(tiny(), load_file(tmp_path / "model.safetensors"))
    assert loaded.state_dict().keys() == stored.keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in loaded.state_dict().items())
    if prepared:
        prepare(loaded, KERNELS)
    assert torch.equal(loaded(IDS), network(IDS))


def test_a_packed_network_loads_moves_and_copies_like_another() -> None:
    network = prepare(quantise(tiny(), "int8", group=0, embeddings="int8"), KERNELS)
    want = network(IDS)
    twin = copy.deepcopy(network)
    assert torch.equal(twin(IDS), want)
    other = prepare(quantise(tiny(), "int8", group=0, embeddings="int8"), KERNELS)
    for module in other.modules():
        if isinstance(module, QuantisedLinear):
            module.use("restore")
            assert module.q is not None
            module.q.zero_()
    prepare(other, KERNELS)
    other.load_state_dict(network.state_dict())
    assert torch.equal(prepare(other, KERNELS)(IDS), want)
    assert torch.equal(prepare(network.to("cpu"), KERNELS)(IDS), want)


def test_rows_of_a_whole_network() -> None:
    network = by_rows(quantise(tiny(), "int8"))
    assert network.get_submodule("blocks.0").stored()[1].shape == (96, 1)  # type: ignore[operator]


def test_room_is_made_for_what_a_file_holds_and_nothing_else() -> None:
    network = make_room(tiny(), {"blocks.0.q": (torch.uint8, (96, 32)), "blocks.0.scale": (torch.float16, (96, 2))})
    made = network.get_submodule("blocks.0")
    assert isinstance(made, QuantisedLinear) and made.weights == "int4" and made.bias is not None
    assert isinstance(network.get_submodule("blocks.1.0"), Linear)
    wrong = {"blocks.0": (96, 30), "blocks.7": (96, 32), "embed": (50, 32), "blocks.0.table": (96, 32)}
    for key, shape in wrong.items():
        with pytest.raises(ConjureError, match="this network has another there, or none"):
            make_room(tiny(), {f"{key}.q": (torch.uint8, shape), f"{key}.scale": (torch.float16, (shape[0], 2))})


# ---- what is refused


def test_what_cannot_be_quantised_is_named_and_nothing_is_touched() -> None:
    network = tiny(48)
    with pytest.raises(ConjureError, match=r"blocks\.0: int8: expected inputs in groups of 32, got 48") as caught:
        quantise(network, "int8")
    assert "skip" in caught.value.hint
    assert not [m for m in network.modules() if isinstance(m, QuantisedLinear)]
    quantise(network, "int8", group=0)


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(ConjureError, match="unknown type 'int9'") as caught:
        quantise(tiny(), "int9")  # type: ignore[arg-type]
    assert "int8" in caught.value.hint
    with pytest.raises(ConjureError, match="nothing here is named 'embe'") as caught:
        quantise(tiny(), "int8", skip=("embe",))
    assert "embed" in caught.value.hint
    with pytest.raises(ConjureError, match="a single layer"):
        quantise(layer(), "int8")


def test_the_restored_form_is_exact() -> None:
    small = quantised(layer(), "int4")
    assert torch.equal(small.weight, restored(*small.stored()))
    assert "int4" in repr(small)
