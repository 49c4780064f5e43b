"""U-Nets and ControlNets against tiny random ones of diffusers, in both layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers as df
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint, convert_ldm_unet_checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.controlnet import ControlNet, summed
from conjure.models.public.diffusers import Files, fill, stored
from conjure.models.public.unets import controlnet_config, controlnet_names, old_names, unet_config, unet_names
from conjure.models.unet import UNet
from tests.models.public.references import close, randomised, saved

TINY: dict[str, Any] = {
    "block_out_channels": (8, 16), "layers_per_block": 2, "norm_num_groups": 4, "cross_attention_dim": 12,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "attention_head_dim": 2,
}  # fmt: skip
UPS: dict[str, Any] = {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
XL: dict[str, Any] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "attention_head_dim": (2, 4),
    "use_linear_projection": True, "transformer_layers_per_block": (1, 3), "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 10 + 6 * 4,
}  # fmt: skip
XL_UPS: dict[str, Any] = {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}
PIXELS: dict[str, Any] = {
    "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip


def conditioned(**changes: Any) -> df.UNet2DConditionModel:
    return df.UNet2DConditionModel(**{**TINY, **UPS, **changes})


MODELS: dict[str, Callable[[], Any]] = {
    "sd1": conditioned,
    "sd2": lambda: conditioned(attention_head_dim=(2, 4), use_linear_projection=True, upcast_attention=True),
    "sdxl": lambda: conditioned(**XL, **XL_UPS),
    "inpaint": lambda: conditioned(in_channels=9),
    "instruct": lambda: conditioned(in_channels=8),
    "upscaler": lambda: conditioned(in_channels=7, num_class_embeds=5, **XL_UPS, only_cross_attention=[True, False],
                                    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D")),
    "upscaler_two": lambda: conditioned(num_class_embeds=5, only_cross_attention=[True, False]),
    "distilled": lambda: conditioned(time_cond_proj_dim=6),
    "headless_middle": lambda: conditioned(mid_block_type="UNetMidBlock2D"),
    "no_middle": lambda: conditioned(mid_block_type=None, layers_per_block=1),
    "scales": lambda: conditioned(resnet_time_scale_shift="scale_shift", dropout=0.1),
    "ddpm": lambda: df.UNet2DModel(**PIXELS, freq_shift=1, flip_sin_to_cos=False, downsample_padding=0, norm_eps=1e-6,
                                   attention_head_dim=None, dropout=0.1),
    "pixels": lambda: df.UNet2DModel(**PIXELS, attention_head_dim=4, num_class_embeds=5),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    known: dict[str, tuple[Any, Path]] = {}

    def make(name: str) -> tuple[Any, Path]:
        if name not in known:
            torch.manual_seed(0)
            model = randomised(MODELS[name]())
            known[name] = model, saved(model, tmp_path_factory.mktemp(name))
        return known[name]

    return make


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def loaded(folder: Path, **how: Any) -> UNet:
    config = unet_config(config_of(folder))
    with torch.device("meta"):
        network = UNet(config)
    files = Files(sorted(folder.glob("*.safetensors")), how.pop("prefix", ""))
    return fill(network, unet_names(config, old=old_names(files.names()), **how), files, what="a U-Net")  # type: ignore[return-value]


def draw(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def asked(network: UNet | ControlNet) -> dict[str, Any]:
    """What this network has to be told, as ours takes it."""
    c, told = getattr(network.config, "unet", network.config), {}
    if c.context:
        told["context_BSD"] = draw(3, 5, c.context, seed=4)
    if c.added:
        told["pooled_BP"], told["sizes_BN"] = draw(3, 10, seed=5), torch.arange(18).view(3, 6) * 70.0
    if c.classes:
        told["labels_B"] = torch.tensor([4, 0, 2])
    if c.guidance:
        told["guidance_B"] = torch.tensor([0.0, 3.5, 7.0])
    return told


def told_theirs(told: dict[str, Any]) -> dict[str, Any]:
    theirs = {}
    if "context_BSD" in told:
        theirs["encoder_hidden_states"] = told["context_BSD"]
    if "pooled_BP" in told:
        theirs["added_cond_kwargs"] = {"text_embeds": told["pooled_BP"], "time_ids": told["sizes_BN"]}
    if "labels_B" in told:
        theirs["class_labels"] = told["labels_B"]
    if "guidance_B" in told:
        embed = df.LatentConsistencyModelPipeline.get_guidance_scale_embedding
        theirs["timestep_cond"] = embed(None, told["guidance_B"], 6)
    return theirs


T = torch.tensor([0, 421, 999])


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_parity(name: str, made: Callable[[str], tuple[Any, Path]]) -> None:
    model, folder = made(name)
    network = loaded(folder)
    x, told = draw(3, network.config.channels, 8, 8), asked(network)
    close(network(x, T.float(), **told), model(x, T, **told_theirs(told)).sample)


@torch.no_grad()
def test_sides_that_do_not_halve(made: Callable[[str], tuple[Any, Path]]) -> None:
    model, folder = made("sd1")
    network, x = loaded(folder), draw(3, 4, 7, 5)
    told = asked(network)
    close(network(x, T, **told), model(x, T, **told_theirs(told)).sample)


def test_names_both_ways(made: Callable[[str], tuple[Any, Path]]) -> None:
    for name in MODELS:
        model, folder = made(name)
        network = loaded(folder)
        linear = config_of(folder).get("use_linear_projection", False)
        written = dict(stored(network, unet_names(network.config, linear=linear)))
        wanted = model.state_dict()
        assert written.keys() == wanted.keys(), name
        assert all(torch.equal(written[each], wanted[each]) for each in wanted), name


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl", "inpaint", "upscaler"])
def test_the_original_layout(name: str, made: Callable[[str], tuple[Any, Path]], tmp_path: Path) -> None:
    """What we write becomes diffusers' own weights by diffusers' own conversion, and what it is made of is read."""
    model, folder = made(name)
    network, config = loaded(folder), config_of(folder)
    written = dict(stored(network, unet_names(network.config, "original", linear=config["use_linear_projection"])))
    single = {f"model.diffusion_model.{key}": tensor for key, tensor in written.items()}
    theirs, wanted = convert_ldm_unet_checkpoint(dict(single), config), model.state_dict()
    assert theirs.keys() == wanted.keys()
    assert all(torch.equal(theirs[key], wanted[key]) for key in wanted)
    save_file({**single, "first_stage_model.decoder.conv_in.bias": torch.zeros(1)}, tmp_path / "all.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    again = loaded(tmp_path, layout="original", prefix="model.diffusion_model.")
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values()))


def test_projections_are_read_as_matrices_and_as_convolutions(
    made: Callable[[str], tuple[Any, Path]], tmp_path: Path
) -> None:
    _, folder = made("sd1")
    network = loaded(folder)
    linear = dict(stored(network, unet_names(network.config, linear=True)))
    assert linear["down_blocks.0.attentions.0.proj_in.weight"].shape == (8, 8)
    save_file(linear, tmp_path / "a.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    again = loaded(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values()))


@torch.no_grad()
def test_old_names_of_attention(made: Callable[[str], tuple[Any, Path]], tmp_path: Path) -> None:
    model, folder = made("ddpm")
    old = load_file(folder / "diffusion_pytorch_model.safetensors")
    for now, before in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        old = {name.replace(f".{now}.", f".{before}."): tensor for name, tensor in old.items()}
    save_file(old, tmp_path / "old.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    x = draw(3, 3, 8, 8)
    close(loaded(tmp_path)(x, T), model(x, T).sample)


def test_misfits_are_listed(made: Callable[[str], tuple[Any, Path]], tmp_path: Path) -> None:
    _, folder = made("sd1")
    state = load_file(folder / "diffusion_pytorch_model.safetensors")
    state["conv_ni.weight"] = state.pop("conv_in.weight")
    state["mid_block.attentions.0.proj_in.weight"] = torch.zeros(16, 15, 1, 1)
    del state["down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight"]
    save_file(state, tmp_path / "broken.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ConjureError) as caught:
        loaded(tmp_path)
    said = str(caught.value)
    assert "missing conv_in.weight [8, 4, 3, 3] (there is conv_ni.weight)" in said
    assert "unexpected conv_ni.weight" in said
    assert "misshapen mid_block.attentions.0.proj_in.weight: expected [16, 16]" in said
    assert "missing down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_hid_dim": 4}, "encoder_hid_dim: expected null, got 4"),
        ({"attention_type": "gated"}, "attention_type: expected 'default', got 'gated'"),
        ({"addition_embed_type": "text_image"}, "addition_embed_type"),
        ({"down_block_types": ["KDownBlock2D", "DownBlock2D"]}, "the same on the way up"),
        ({"up_block_types": ["UpBlock2D", "UpBlock2D"]}, "the same on the way up"),
        ({"block_out_channels": [8]}, "one for each of 2 levels"),
        ({"layers_per_block": [1, 2]}, "the same for all levels"),
        ({"attention_head_dim": 3}, "the heads divide"),
        ({"only_cross_attention": True}, "only_cross_attention everywhere"),
        ({"_class_name": "UNet2DModel", "resnet_time_scale_shift": "scale_shift"}, "not built"),
    ],
)
def test_what_is_not_built_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConjureError, match=message):
        unet_config({**TINY, **change})


# -- ControlNet --------------------------------------------------------------------------------------------------------


def steering(**changes: Any) -> Any:
    return randomised(df.ControlNetModel(**{**TINY, **changes}, conditioning_embedding_out_channels=(4, 6, 8, 10)))


def steered(model: Any, folder: Path, **how: Any) -> ControlNet:
    config = controlnet_config(config_of(saved(model, folder)))
    with torch.device("meta"):
        network = ControlNet(config)
    fill(network, controlnet_names(config, **how), Files(sorted(folder.glob("*.safetensors"))), what="a ControlNet")
    return network


@torch.no_grad()
@pytest.mark.parametrize(
    "changes", [{}, XL, {"controlnet_conditioning_channel_order": "bgr"}, {"global_pool_conditions": True}]
)
def test_controlnet_parity(changes: dict[str, Any], tmp_path: Path) -> None:
    model = steering(**changes)
    network = steered(model, tmp_path)
    x, hint, told = draw(3, 4, 8, 8), draw(3, 3, 64, 64), asked(network)
    theirs = model(x, T, **told_theirs(told), controlnet_cond=hint, conditioning_scale=0.7)
    wanted = [*theirs.down_block_res_samples, theirs.mid_block_res_sample]
    for ours, other in zip(network(x, T, **told, hint_BCHW=hint, scale=0.7), wanted, strict=True):
        close(ours, other)


@torch.no_grad()
def test_a_steered_network(made: Callable[[str], tuple[Any, Path]], tmp_path: Path) -> None:
    """Two ControlNets, summed, steer as the sums of both do."""
    model, folder = made("sd1")
    unet, x, hint = loaded(folder), draw(3, 4, 8, 8), draw(3, 3, 64, 64)
    told = asked(unet)
    models = [randomised(steering(), seed) for seed in (1, 2)]
    ours = [steered(each, tmp_path / str(k)) for k, each in enumerate(models)]
    theirs = [each(x, T, told["context_BSD"], controlnet_cond=hint, return_dict=False) for each in models]
    wanted = model(x, T, told["context_BSD"], mid_block_additional_residual=theirs[0][1] + theirs[1][1],
                   down_block_additional_residuals=tuple(a + b for a, b in zip(theirs[0][0], theirs[1][0]))).sample
    residuals = summed([each(x, T, **told, hint_BCHW=hint) for each in ours])
    close(unet(x, T, **told, residuals=residuals), wanted)
    with pytest.raises(ConjureError, match="expected 7 residuals, got 6"):
        unet(x, T, **told, residuals=residuals[1:])


def test_controlnet_names(tmp_path: Path) -> None:
    model = steering(down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"))
    network, wanted = steered(model, tmp_path), model.state_dict()
    written = dict(stored(network, controlnet_names(network.config)))
    assert written.keys() == wanted.keys()
    assert all(torch.equal(written[each], wanted[each]) for each in wanted)
    original = {f"control_model.{name}": tensor for name, tensor in
                stored(network, controlnet_names(network.config, "original"))}
    theirs = convert_controlnet_checkpoint(dict(original), config_of(tmp_path))
    assert theirs.keys() == wanted.keys()
    assert all(torch.equal(theirs[each], wanted[each]) for each in wanted)
    again = nn.Module.to_empty(ControlNet(network.config), device="meta")
    save_file(original, tmp_path / "all.safetensors")
    fill(again, controlnet_names(network.config, "original"), Files([tmp_path / "all.safetensors"], "control_model."),
         what="a ControlNet")
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values()))
