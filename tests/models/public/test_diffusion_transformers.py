"""The maps of DiT, Stable Diffusion 3 and Flux, both ways and in both layouts; sizes of the real ones; refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel, FluxTransformer2DModel, SD3Transformer2DModel
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_sd3_transformer_checkpoint_to_diffusers,
)
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.models.class_dit import ClassDiT, ClassDiTConfig
from conjure.models.flux import Flux, FluxConfig
from conjure.models.mmdit import MMDiT, MMDiTConfig
from conjure.models.public import diffusion_transformers as maps
from conjure.models.public.names import Map, rule_for
from tests.models.diffusers_references import count, drawn, filled, reference, written

DIT: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 64, "num_layers": 2, "sample_size": 8,
                       "num_embeds_ada_norm": 10, "out_channels": 8}  # fmt: skip
SD3: dict[str, Any] = {
    "sample_size": 12, "in_channels": 3, "out_channels": 3, "num_layers": 3, "attention_head_dim": 64,
    "num_attention_heads": 1, "joint_attention_dim": 20, "caption_projection_dim": 64, "pooled_projection_dim": 12,
    "pos_embed_max_size": 6,
}  # fmt: skip
SD35: dict[str, Any] = {**SD3, "qk_norm": "rms_norm", "dual_attention_layers": (0, 1)}
FLUX: dict[str, Any] = {
    "in_channels": 12, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 32, "num_attention_heads": 1,
    "joint_attention_dim": 20, "pooled_projection_dim": 12, "axes_dims_rope": (4, 14, 14), "guidance_embeds": True,
}  # fmt: skip
REAL: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "SD 3 medium": (SD3Transformer2DModel, {
        "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192}),
    "SD 3.5 medium": (SD3Transformer2DModel, {
        "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 384,
        "qk_norm": "rms_norm", "dual_attention_layers": tuple(range(13))}),
    "SD 3.5 large": (SD3Transformer2DModel, {
        "num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "pos_embed_max_size": 192,
        "qk_norm": "rms_norm"}),
    "FLUX.1 dev": (FluxTransformer2DModel, {"guidance_embeds": True}),
}  # fmt: skip
Names = Callable[[Any], Map]


def network_of(model: Any) -> tuple[Any, Names, Names]:
    """Ours of the same shape, and the maps of both layouts."""
    if isinstance(model, SD3Transformer2DModel):
        return MMDiT(maps.mmdit_config(model.config)), maps.mmdit_names, maps.mmdit_original
    if isinstance(model, FluxTransformer2DModel):
        return Flux(maps.flux_config(model.config)), maps.flux_names, maps.flux_original
    return ClassDiT(maps.class_dit_config(model.config)), maps.class_dit_names, maps.class_dit_original


def equal(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(("kind", "settings"), [
    (DiTTransformer2DModel, DIT), (SD3Transformer2DModel, SD3), (SD3Transformer2DModel, SD35),
    (FluxTransformer2DModel, FLUX), (FluxTransformer2DModel, {**FLUX, "guidance_embeds": False}),
], ids=["DiT", "SD3", "SD3.5", "Flux dev", "Flux schnell"])  # fmt: skip
def test_what_is_read_is_written_again(kind: type[Any], settings: dict[str, Any]) -> None:
    model = reference(kind(**settings))
    network, names, original = network_of(model)
    network = filled(network, names(network.config), model.state_dict())
    equal(written(network, names(network.config)), model.state_dict())
    single = written(network, original(network.config))
    again, _, _ = network_of(model)
    equal(filled(again, original(again.config), single).state_dict(), network.state_dict())


@pytest.mark.parametrize("settings", [SD3, SD35], ids=["3", "3.5"])
@pytest.mark.parametrize("prefix", ["", maps.PREFIX])
def test_single_files_of_stable_diffusion_3_are_what_diffusers_takes_them_for(
    settings: dict[str, Any], prefix: str
) -> None:
    model = reference(SD3Transformer2DModel(**settings))
    network = filled(network_of(model)[0], maps.mmdit_names(maps.mmdit_config(model.config)), model.state_dict())
    single = written(network, maps.mmdit_original(network.config))
    assert maps.mmdit_shapes({name: tuple(t.shape) for name, t in single.items()}) == MMDiTConfig(
        **{**vars(network.config), "hidden": 256})
    equal(convert_sd3_transformer_checkpoint_to_diffusers({prefix + name: t for name, t in single.items()}),
          model.state_dict())


def narrow(network: torch.nn.Module, names: Map) -> dict[str, Tensor]:
    """What would be written, of a network that is too large, with one column left of each matrix."""
    state: dict[str, Tensor] = {}
    for seed, (parameter, tensor) in enumerate(network.named_parameters()):
        match = rule_for(parameter, names)
        assert match is not None
        rule, last, numbers = match
        pieces = rule.write(drawn(tensor.shape[0], *[1] * (tensor.dim() - 1), seed=seed))
        state |= zip(rule.names(last, numbers), pieces, strict=True)
    return state


@pytest.mark.parametrize("guidance", [True, False])
def test_single_files_of_flux_are_what_diffusers_takes_them_for(guidance: bool) -> None:
    """Its converter knows the real width only."""
    config = FluxConfig(layers=1, single_layers=2, guidance=guidance)
    with torch.device("meta"):
        network = Flux(config)
        shapes = {name: tuple(t.shape) for name, t in written(network, maps.flux_original(config)).items()}
    assert maps.flux_shapes(shapes) == FluxConfig(**{**vars(config), "hidden": 12288})
    single = narrow(network, maps.flux_original(config))
    equal(convert_flux_transformer_checkpoint_to_diffusers(single), narrow(network, maps.flux_names(config)))


def test_single_files_of_dit() -> None:
    model = reference(DiTTransformer2DModel(**DIT))
    state = model.state_dict()
    network = filled(network_of(model)[0], maps.class_dit_names(maps.class_dit_config(model.config)), state)
    single = written(network, maps.class_dit_original(network.config))
    embedding = "transformer_blocks.0.norm1.emb."
    expected = {
        "x_embedder.proj.weight": state["pos_embed.proj.weight"],
        "t_embedder.mlp.2.bias": state[embedding + "timestep_embedder.linear_2.bias"],
        "y_embedder.embedding_table.weight": state[embedding + "class_embedder.embedding_table.weight"],
        "blocks.1.attn.qkv.weight": torch.cat([state[f"transformer_blocks.1.attn1.to_{n}.weight"] for n in "qkv"]),
        "blocks.1.attn.proj.bias": state["transformer_blocks.1.attn1.to_out.0.bias"],
        "blocks.0.mlp.fc1.weight": state["transformer_blocks.0.ff.net.0.proj.weight"],
        "blocks.0.mlp.fc2.weight": state["transformer_blocks.0.ff.net.2.weight"],
        "blocks.0.adaLN_modulation.1.weight": state["transformer_blocks.0.norm1.linear.weight"],
        "final_layer.adaLN_modulation.1.bias": state["proj_out_1.bias"],
        "final_layer.linear.weight": state["proj_out_2.weight"],
    }
    equal({name: single[name] for name in expected}, expected)
    assert len(single) == 2 + 5 + 2 * 10 + 4
    shapes = {name: tuple(tensor.shape) for name, tensor in single.items()} | {"pos_embed": (1, 16, 128)}
    assert maps.class_dit_shapes(shapes) == ClassDiTConfig(
        **{**vars(network.config), "frequencies": 128, "eps": 1e-6})


def test_embeddings_that_differ_between_blocks_are_refused() -> None:
    model = reference(DiTTransformer2DModel(**DIT))
    model.transformer_blocks[1].norm1.emb.class_embedder.embedding_table.weight[3, 2] += 1
    network, names, _ = network_of(model)
    with pytest.raises(ConjureError, match=r"norm1\.emb\.class_embedder.*expected the same values in every block"):
        filled(network, names(network.config), model.state_dict())


@pytest.mark.parametrize("name", REAL)
def test_sizes_of_the_real_ones(name: str) -> None:
    kind, settings = REAL[name]
    with torch.device("meta"):
        model = kind(**settings)
        network, names, _ = network_of(model)
    wanted = {"SD 3 medium": 2_028_328_000, "SD 3.5 medium": 2_243_171_520, "SD 3.5 large": 8_056_627_520,
              "FLUX.1 dev": 11_901_408_320}  # fmt: skip
    assert count(network) == count(model) == wanted[name]
    shapes = {each: tuple(tensor.shape) for each, tensor in written(network, names(network.config)).items()}
    assert shapes == {each: tuple(tensor.shape) for each, tensor in model.state_dict().items()}


def test_size_of_dit_xl() -> None:
    """Published as 675 million, which counts the fixed table of 256 places."""
    with torch.device("meta"):
        network = ClassDiT(maps.class_dit_config({"_class_name": "Transformer2DModel", "out_channels": 8}))
        model = DiTTransformer2DModel(out_channels=8)
    assert count(network) + 256 * 1152 == 675_129_632
    assert count(model) - 27 * count(model.transformer_blocks[0].norm1.emb) == count(network)


@pytest.mark.parametrize(
    ("config", "settings", "says"),
    [
        (maps.class_dit_config, {"norm_type": "ada_norm_single"}, "norm_type: expected 'ada_norm_zero'"),
        (maps.class_dit_config, {"activation_fn": "geglu"}, "activation_fn: expected 'gelu-approximate'"),
        (maps.class_dit_config, {"num_layers": 0}, "num_layers: expected a whole number"),
        (maps.class_dit_config, {"sample_size": 33}, "expected patch to divide size"),
        (maps.mmdit_config, {"num_attention_heads": 24}, "caption_projection_dim: expected 1536, got 1152"),
        (maps.mmdit_config, {"qk_norm": "layer_norm", "caption_projection_dim": 1152}, "qk_norm: expected 'rms_norm'"),
        (maps.mmdit_config, {"dual_attention_layers": [18], "caption_projection_dim": 1152}, "the 18 layers"),
        (maps.flux_config, {"patch_size": 2}, "patch_size: expected 1"),
        (maps.flux_config, {"in_channels": 63}, "expected multiples of 4"),
        (maps.flux_config, {"axes_dims_rope": [16, 16, 16]}, "whose sum is dim / heads"),
        (maps.class_dit_shapes, {"x_embedder.proj.weight": (4, 4)}, "with 4 axes, got [4, 4]"),
        (maps.mmdit_shapes, {}, "with 4 axes, got none"),
        (maps.flux_shapes, {}, "img_in.weight with 2 axes, got none"),
    ],
)
def test_what_is_no_network_of_these_kinds_is_refused(
    config: Callable[[Any], Any], settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConjureError) as error:
        config(settings)
    assert says in error.value.message
