"""Picture autoencoders against tiny random ones of diffusers, in every layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers as df
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.models.autoencoder_kl import AutoencoderKL
from conjure.models.public.autoencoders import autoencoder_config, autoencoder_names, tiny_config, tiny_names
from conjure.models.public.diffusers import Files, fill, stored
from conjure.models.public.unets import old_names
from conjure.models.taesd import TinyAutoencoder
from tests.models.public.references import close, randomised, saved

TINY: dict[str, Any] = {
    "block_out_channels": (8, 16, 16), "layers_per_block": 2, "norm_num_groups": 4, "sample_size": 16,
    "down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "sd1": {},
    "sdxl": {"scaling_factor": 0.13025},
    "sd3": {"latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609, "use_quant_conv": False,
            "use_post_quant_conv": False},
    "blind": {"mid_block_add_attention": False, "layers_per_block": 1, "in_channels": 1, "out_channels": 1},
}  # fmt: skip
TAESD: dict[str, Any] = {
    "encoder_block_out_channels": (8, 8, 8), "decoder_block_out_channels": (8, 8, 8), "num_encoder_blocks": (1, 2, 3),
    "num_decoder_blocks": (3, 2, 1), "scaling_factor": 0.5, "shift_factor": 0.25, "latent_channels": 6,
}  # fmt: skip


def reference(name: str, folder: Path) -> Any:
    model = randomised(df.AutoencoderKL(**{**TINY, **MODELS[name]}))
    saved(model, folder)
    return model


def loaded(folder: Path, layout: Any = "diffusers", prefix: str = "") -> AutoencoderKL:
    config = autoencoder_config(json.loads((folder / "config.json").read_text()))
    with torch.device("meta"):
        network = AutoencoderKL(config)
    files = Files(sorted(folder.glob("*.safetensors")), prefix)
    names = autoencoder_names(config, layout, old=old_names(files.names()))
    return fill(network, names, files, what="an autoencoder")  # type: ignore[return-value]


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sides", [(16, 24), (19, 22)])
def test_parity(name: str, sides: tuple[int, int], tmp_path: Path) -> None:
    model = reference(name, tmp_path)
    network, x = loaded(tmp_path), draw(2, MODELS[name].get("in_channels", 3), *sides)
    theirs = model.encode(x).latent_dist
    mean, logvar = network.encode(x)
    close(mean, theirs.mean)
    close(logvar, theirs.logvar)
    z = draw(2, network.config.latent, 5, 4)
    close(network.decode(z), model.decode(z).sample)
    c = model.config
    close(network.to_latent(z), (z - (c.shift_factor or 0)) * c.scaling_factor)
    close(network.from_latent(network.to_latent(z)), z)


@pytest.mark.parametrize("name", MODELS)
def test_names_both_ways(name: str, tmp_path: Path) -> None:
    model = reference(name, tmp_path)
    network, wanted = loaded(tmp_path), model.state_dict()
    written = dict(stored(network, autoencoder_names(network.config)))
    assert written.keys() == wanted.keys()
    assert all(torch.equal(written[each], wanted[each]) for each in wanted)


@pytest.mark.parametrize("name", ["sd1", "sd3"])
def test_the_original_layout(name: str, tmp_path: Path) -> None:
    """What we write becomes diffusers' own weights by diffusers' own conversion, and is read again."""
    (tmp_path / "theirs").mkdir()
    model = reference(name, tmp_path / "theirs")
    network, wanted = loaded(tmp_path / "theirs"), model.state_dict()
    written = dict(stored(network, autoencoder_names(network.config, "original")))
    assert written["decoder.mid.attn_1.q.weight"].shape == (16, 16, 1, 1)
    single = {f"first_stage_model.{key}": tensor for key, tensor in written.items()}
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    theirs = convert_ldm_vae_checkpoint(dict(single), config)
    assert theirs.keys() == wanted.keys()
    assert all(torch.equal(theirs[each], wanted[each]) for each in wanted)
    save_file(single, tmp_path / "all.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    again = loaded(tmp_path, "original", "first_stage_model.")
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values()))


@torch.no_grad()
@pytest.mark.parametrize("convolutions", [False, True])
def test_old_names_of_attention(convolutions: bool, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    model = reference("sd1", tmp_path / "theirs")
    old = load_file(tmp_path / "theirs" / "diffusion_pytorch_model.safetensors")
    for now, before in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        old = {name.replace(f".{now}.", f".{before}."): tensor for name, tensor in old.items()}
    if convolutions:
        old |= {name: tensor[..., None, None] for name, tensor in old.items()
                if name.endswith(("query.weight", "key.weight", "value.weight", "proj_attn.weight"))}
    save_file(old, tmp_path / "old.safetensors")
    (tmp_path / "config.json").write_text((tmp_path / "theirs" / "config.json").read_text())
    z = draw(1, 4, 3, 3)
    close(loaded(tmp_path).decode(z), model.decode(z).sample)


def test_misfits_are_listed(tmp_path: Path) -> None:
    reference("sd1", tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state["decoder.mid_block.attentions.0.to_k.bias"]
    state["quant_conv.weight"] = torch.zeros(4, 8, 1, 1)
    save_file(state | {"loss.logvar": torch.zeros(1)}, path)
    with pytest.raises(ConjureError) as caught:
        loaded(tmp_path)
    assert "missing decoder.mid_block.attentions.0.to_k.bias" in str(caught.value)
    assert "misshapen quant_conv.weight: expected [8, 8, 1, 1], got [4, 8, 1, 1]" in str(caught.value)
    assert "unexpected loss.logvar [1]" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act_fn": "gelu"}, "act_fn: expected 'silu', got 'gelu'"),
        ({"latents_mean": [0.0]}, "latents_mean"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 3}, "down_block_types"),
        ({"out_channels": 4}, "as many out_channels"),
        ({"norm_num_groups": 3}, "3 groups divide"),
    ],
)
def test_what_is_not_built_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConjureError, match=message):
        autoencoder_config({**TINY, **change})


# -- TAESD -------------------------------------------------------------------------------------------------------------


def tiny(folder: Path) -> tuple[Any, TinyAutoencoder]:
    model = randomised(df.AutoencoderTiny(**TAESD))
    saved(model, folder)
    config = tiny_config(json.loads((folder / "config.json").read_text()))
    with torch.device("meta"):
        network = TinyAutoencoder(config)
    files = Files(sorted(folder.glob("*.safetensors")))
    fill(network, tiny_names(config), files, what="a tiny autoencoder")
    return model, network


@torch.no_grad()
def test_tiny_parity(tmp_path: Path) -> None:
    model, network = tiny(tmp_path)
    x, z = draw(2, 3, 16, 24).clamp(-1, 1), 2 * draw(2, 6, 5, 4)
    mean, logvar = network.encode(x)
    close(mean, model.encode(x).latents)
    assert (logvar == -30).all()
    close(network.decode(z), model.decode(z).sample)
    close(network.from_latent(z), z / 0.5 + 0.25)
    close(network.to_latent(z), (z - 0.25) * 0.5)


def test_tiny_names(tmp_path: Path) -> None:
    model, network = tiny(tmp_path)
    wanted = model.state_dict()
    written = dict(stored(network, tiny_names(network.config)))
    assert written.keys() == wanted.keys()
    assert all(torch.equal(written[each], wanted[each]) for each in wanted)
    original = dict(stored(network, tiny_names(network.config, "original")))
    assert {"encoder.0.weight", "encoder.1.conv.4.bias", "encoder.2.weight", "decoder.1.weight",
            "decoder.3.conv.0.weight", "decoder.7.weight"} <= original.keys()
    assert not {"encoder.2.bias", "decoder.0.weight", "decoder.7.bias"} & original.keys()
    built = original_decoder()
    built.load_state_dict({name.removeprefix("decoder."): tensor for name, tensor in original.items()
                           if name.startswith("decoder.")})
    z = 2 * draw(1, 6, 4, 4)
    with torch.no_grad():
        close(network.decode(z), built(z) * 2 - 1)
    save_file(original, tmp_path / "both.safetensors")
    with torch.device("meta"):
        again = TinyAutoencoder(network.config)
    files = Files([tmp_path / "both.safetensors"])
    fill(again, tiny_names(network.config, "original"), files, what="a tiny autoencoder")
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values()))


class Clamp(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        relu = torch.nn.ReLU
        self.conv = torch.nn.Sequential(conv(), relu(), conv(), relu(), conv())

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


def conv(channels_in: int = 8, channels_out: int = 8, **how: Any) -> torch.nn.Conv2d:
    return torch.nn.Conv2d(channels_in, channels_out, 3, padding=1, **how)


def original_decoder() -> torch.nn.Sequential:
    """As the first files of TAESD count their layers."""
    up = torch.nn.Upsample
    return torch.nn.Sequential(
        Clamp(), conv(6), torch.nn.ReLU(), Block(), Block(), Block(), up(scale_factor=2), conv(bias=False), Block(),
        Block(), up(scale_factor=2), conv(bias=False), Block(), conv(8, 3),
    )  # fmt: skip


@pytest.mark.parametrize("change", [{"act_fn": "silu"}, {"upsampling_scaling_factor": 4}, {"out_channels": 4},
                                    {"num_encoder_blocks": [1, 2]}])  # fmt: skip
def test_tiny_ones_that_are_not_built_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConjureError, match="expected"):
        tiny_config({**TAESD, **change})
