"""LoRA files of every dialect, merged, beside what the reference makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.models.latent_diffusion import LatentDiffusion
from tests.models.public import tiny_pipelines as tiny
from tests.models.public.references import close

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of the reference

LINEAR = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj"]
CONVOLVED = [*LINEAR, "proj_in", "conv1", "conv_shortcut"]
WORDS = ["q_proj", "v_proj", "fc1"]


def adapted(theirs: Any, modules: list[str], *, alpha: float = 6, seed: int = 0) -> tuple[Any, Any]:
    """Adapters of rank 3 in the denoiser and the first text encoder, with nothing left at 0."""
    generator = torch.Generator().manual_seed(seed)
    for network, names in ((denoiser(theirs), modules), (theirs.text_encoder, WORDS)):
        network.add_adapter(peft.LoraConfig(r=3, lora_alpha=alpha, target_modules=names))
        for name, parameter in network.named_parameters():
            if "lora_" in name:
                with torch.no_grad():
                    parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return (peft.get_peft_model_state_dict(denoiser(theirs)), peft.get_peft_model_state_dict(theirs.text_encoder))


def denoiser(theirs: Any) -> Any:
    return theirs.unet if hasattr(theirs, "unet") else theirs.transformer


def kohya(unet: dict[str, Tensor], text: dict[str, Tensor], alpha: float, *, te: str = "lora_te_") -> dict[str, Tensor]:
    """The same in the other dialect: underscores, and alpha as a tensor."""
    found = {}
    for prefix, state in (("lora_unet_", unet), (te, text)):
        for name, tensor in state.items():
            module = name.removesuffix(".lora_A.weight").removesuffix(".lora_B.weight")
            if prefix != "lora_unet_" and not module.startswith("text_model."):
                module = f"text_model.{module}"
            flat = prefix + module.replace(".", "_")
            found[flat + (".lora_down.weight" if "lora_A" in name else ".lora_up.weight")] = tensor
            found[flat + ".alpha"] = torch.tensor(alpha)
    return found


@torch.no_grad()
def outputs(theirs: Any, ours: LatentDiffusion) -> None:
    """Both networks give the same, and so do the text encoders."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, 16, 16, generator=generator)
    t, context = torch.tensor([700.0, 20.0]), torch.randn(2, 20, 64, generator=generator)
    wanted = theirs.unet(x, t, context).sample
    plain = LatentDiffusion(ours.pipeline).denoiser(x, t, context)
    assert (plain - wanted).abs().max() > 0.01 * wanted.abs().max(), "the adapter does nothing"
    close(ours.denoiser(x, t, context), wanted, tolerance=2e-5)
    close(ours.encode_prompts(["cat"]).context_NTD, theirs.encode_prompt("cat", "cpu", 1, False)[0])


def test_files_of_peft_and_kohya(tmp_path: Path) -> None:
    theirs = tiny.stable_diffusion(tmp_path / "source")
    theirs.save_pretrained(tmp_path / "saved")
    unet, text = adapted(theirs, CONVOLVED)
    # Twice the rank: what a reader makes of a missing alpha differs from it.
    metadata = {"unet.lora_alpha": 6, "unet.r": 3, "text_encoder.lora_alpha": 6, "text_encoder.r": 3}
    state = {f"unet.{k}": v for k, v in unet.items()} | {f"text_encoder.{k}": v for k, v in text.items()}
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "peft.safetensors",
              metadata={"lora_adapter_metadata": json.dumps(metadata)})  # fmt: skip
    save_file(kohya(unet, text, 6.0), tmp_path / "kohya.safetensors")
    for name in ("peft", "kohya"):
        ours = LatentDiffusion.load(tmp_path / "saved")
        report = ours.add_lora(tmp_path / f"{name}.safetensors")
        assert sum(report.matched.values()) == (len(unet) + len(text)) // 2 and report.rank == 3
        assert "all" in str(report) and "text_encoder" in str(report)
        outputs(theirs, ours)


def test_the_reference_reads_the_same_files(tmp_path: Path) -> None:
    """What diffusers writes is read with its own scale, and a strength."""
    theirs = tiny.stable_diffusion(tmp_path / "source")
    theirs.save_pretrained(tmp_path / "saved")
    unet, text = adapted(theirs, LINEAR, alpha=1.5)
    type(theirs).save_lora_weights(
        tmp_path / "lora", unet_lora_layers=unet, text_encoder_lora_layers=text,
        unet_lora_adapter_metadata=theirs.unet.peft_config["default"].to_dict(),
        text_encoder_lora_adapter_metadata=theirs.text_encoder.peft_config["default"].to_dict(),
    )  # fmt: skip
    fresh = type(theirs).from_pretrained(tmp_path / "saved", safety_checker=None)
    fresh.load_lora_weights(tmp_path / "lora")
    fresh.set_adapters(fresh.get_active_adapters(), adapter_weights=[0.7])
    outputs(fresh, LatentDiffusion.load(tmp_path / "saved", loras=[(tmp_path / "lora", 0.7)]))


def test_names_of_those_who_trained_xl(tmp_path: Path) -> None:
    """kohya's files for XL name the modules of the original U-Net."""
    theirs = tiny.stable_diffusion_xl(tmp_path / "source")
    theirs.save_pretrained(tmp_path / "saved")
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 64, generator=generator), torch.randn(64, 2, generator=generator)
    module = "mid_block.attentions.0.transformer_blocks.1.attn1.to_v"
    save_file({"lora_unet_middle_block_1_transformer_blocks_1_attn1_to_v.lora_down.weight": down,
               "lora_unet_middle_block_1_transformer_blocks_1_attn1_to_v.lora_up.weight": up,
               "lora_te2_text_model_encoder_layers_1_self_attn_k_proj.lora_down.weight": torch.randn(2, 128),
               "lora_te2_text_model_encoder_layers_1_self_attn_k_proj.lora_up.weight": torch.randn(128, 2)},
              tmp_path / "xl.safetensors")  # fmt: skip
    ours = LatentDiffusion.load(tmp_path / "saved")
    before = ours.denoiser.state_dict()["middle.attention.blocks.1.attention1.qkv.weight"].clone()
    report = ours.add_lora(tmp_path / "xl.safetensors", 0.5)
    assert dict(report.matched) == {"unet": 1, "text_encoder_2": 1}
    after = ours.denoiser.state_dict()["middle.attention.blocks.1.attention1.qkv.weight"]
    close(after[128:] - before[128:], 0.5 * up @ down)
    assert torch.equal(after[:128], before[:128]), module


def broken(tmp_path: Path, change: Any) -> ConjureError:
    """What is said about a file after this change; the networks stay as they were."""
    theirs = tiny.stable_diffusion(tmp_path / "source")
    theirs.save_pretrained(tmp_path / "saved")
    state = kohya(*adapted(theirs, ["to_q"]), 3.0)
    save_file(change(state), tmp_path / "l.safetensors")
    ours = LatentDiffusion.load(tmp_path / "saved")
    before = {name: t.clone() for name, t in ours.denoiser.state_dict().items()}
    with pytest.raises(ConjureError) as caught:
        ours.add_lora(tmp_path / "l.safetensors")
    assert all(torch.equal(t, before[name]) for name, t in ours.denoiser.state_dict().items())
    return caught.value


def test_a_name_that_fits_nothing_refuses_the_file(tmp_path: Path) -> None:
    error = broken(tmp_path, lambda s: {k.replace("attn2_to_q", "attn2_to_quark"): v for k, v in s.items()})
    assert "modules matched, 4 did not" in error.message and "attn2_to_quark" in error.message
    assert "(nearest: lora_unet_" in error.message


def test_another_base_is_refused(tmp_path: Path) -> None:
    def widened(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {k: torch.zeros(3, 1024) if k.endswith("attn2_to_q.lora_down.weight") else v for k, v in state.items()}

    error = broken(tmp_path, widened)
    assert "another base model" in error.message and ", 1024]" in error.message


def test_other_kinds_are_named(tmp_path: Path) -> None:
    error = broken(tmp_path, lambda s: {**s, "lora_unet_x.hada_w1_a": torch.zeros(2, 2)})
    assert "LoHa, LoKr and DoRA" in error.hint


def test_pickles_and_missing_files(tmp_path: Path) -> None:
    theirs = tiny.stable_diffusion(tmp_path / "source")
    theirs.save_pretrained(tmp_path / "saved")
    ours = LatentDiffusion.load(tmp_path / "saved")
    (tmp_path / "lora.pt").write_bytes(b"\x80\x02.")
    with pytest.raises(ConjureError, match="is a pickle"):
        ours.add_lora(tmp_path / "lora.pt")
    with pytest.raises(ConjureError, match="no such LoRA"):
        ours.add_lora(tmp_path / "none.safetensors")
    with pytest.raises(ConjureError, match=r"expected pytorch_lora_weights\.safetensors"):
        ours.add_lora(tmp_path)


def test_a_convolution_between_two(tmp_path: Path) -> None:
    """LoCon with a middle: three convolutions one after another are one."""
    theirs = tiny.stable_diffusion(tmp_path / "source")
    theirs.save_pretrained(tmp_path / "saved")
    name = "lora_unet_conv_in"
    generator = torch.Generator().manual_seed(0)
    down, mid = torch.randn(2, 4, 1, 1, generator=generator), torch.randn(2, 2, 3, 3, generator=generator)
    up = torch.randn(32, 2, 1, 1, generator=generator)
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_mid.weight": mid, f"{name}.lora_up.weight": up},
              tmp_path / "l.safetensors")  # fmt: skip
    ours = LatentDiffusion.load(tmp_path / "saved")
    before = ours.denoiser.state_dict()["start.weight"].clone()
    ours.add_lora(tmp_path / "l.safetensors")
    x = torch.randn(1, 4, 8, 8, generator=generator)
    conv = torch.nn.functional.conv2d
    delta = ours.denoiser.state_dict()["start.weight"] - before
    close(conv(x, delta), conv(conv(conv(x, down), mid), up))
