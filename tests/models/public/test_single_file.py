"""Whole models in one file, in the layout of those who trained them; the reference reads the same files."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.models.latent_diffusion import LatentDiffusion, TorchNoise, Wish
from conjure.models.public import single_file
from conjure.models.public.autoencoders import autoencoder_names
from conjure.models.public.denoisers import autoencoder_laid_out
from conjure.models.public.diffusers import Files, stored
from tests.models.public import tiny_pipelines as tiny
from tests.models.public.references import close

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of the reference


def written(theirs: Any, folder: Path, **more: Tensor) -> Path:
    """The pipeline in one file, its tokenizers beside it."""
    theirs.save_pretrained(folder / "saved")
    model = LatentDiffusion.load(folder / "saved")
    part = next(iter(model.hosts.values()))
    tensors = {f"model.diffusion_model.{name}": t for name, t in stored(model.denoiser, part.maps[1])}
    config = autoencoder_laid_out(model.pipeline)[0].config
    names = autoencoder_names(config, "original")  # type: ignore[arg-type]
    tensors |= {f"first_stage_model.{name}": t for name, t in stored(model.autoencoder, names)}
    for name, prefix in PREFIXES[model.kind].items():
        reader = model.prompts.readers[name]
        if prefix.endswith(".model."):
            names = single_file.open_clip_names(reader.network.config)  # type: ignore[arg-type]
            tensors |= {prefix + disk: t for disk, t in stored(reader.network, names)}
            tensors[prefix + "logit_scale"] = torch.zeros(())
        else:
            tensors |= {prefix + disk: t for disk, t in stored(reader.network, reader.names)}
    path = folder / "file" / "whole.safetensors"
    path.parent.mkdir()
    # A reader by another hand takes each fused matrix apart; its own copy of a tensor must not share memory.
    save_file({name: t.clone().contiguous() for name, t in {**tensors, **more}.items()}, path)
    for tokenizer in (folder / "saved").glob("tokenizer*"):
        shutil.copytree(tokenizer, path.parent / tokenizer.name)
    return path


PREFIXES: dict[str, dict[str, str]] = {
    "sd": {"text_encoder": "cond_stage_model.transformer."},
    "sdxl": {"text_encoder": "conditioner.embedders.0.transformer.",
             "text_encoder_2": "conditioner.embedders.1.model."},
    "sd3": {"text_encoder": "text_encoders.clip_l.transformer.", "text_encoder_2": "text_encoders.clip_g.transformer.",
            "text_encoder_3": "text_encoders.t5xxl.transformer."},
}  # fmt: skip


def picture(model: LatentDiffusion) -> np.ndarray:
    told, without = model.encode_prompts(["red apple"]), model.encode_negative([""])
    wish = Wish(steps=4, guidance=5.0, sampler="euler")
    *_, last = model.sample(told, without, wish, noise=TorchNoise([3]), height=32, width=32)
    return model.decode(last.x)[0].numpy()


@pytest.mark.parametrize(("make", "pipeline"), [(tiny.stable_diffusion, diffusers.StableDiffusionPipeline),
                                                (tiny.stable_diffusion_xl, diffusers.StableDiffusionXLPipeline)])
def test_the_reference_reads_the_same_file_alike(make: Any, pipeline: Any, tmp_path: Path) -> None:
    path = written(make(tmp_path / "source"), tmp_path)
    theirs = pipeline.from_single_file(path, config=str(tmp_path / "saved"), local_files_only=True)
    theirs.scheduler = diffusers.EulerDiscreteScheduler.from_config(theirs.scheduler.config)
    ours = LatentDiffusion.load(path)
    assert ours.kind == ("sdxl" if make is tiny.stable_diffusion_xl else "sd")
    wanted = tiny.drawn(theirs, "red apple", seed=3, num_inference_steps=4, guidance_scale=5.0, height=32, width=32)
    assert int(np.abs(picture(ours).astype(int) - wanted.astype(int)).max()) <= 1


def test_stable_diffusion_3_as_a_folder_and_as_a_file(tmp_path: Path) -> None:
    path = written(tiny.stable_diffusion_3(tmp_path / "source", head=64), tmp_path)
    folder, file = LatentDiffusion.load(tmp_path / "saved"), LatentDiffusion.load(path)
    assert file.kind == "sd3" and file.pipeline.scheduler["shift"] == 3.0
    assert int(np.abs(picture(folder).astype(int) - picture(file).astype(int)).max()) <= 1


@torch.no_grad()
def test_stable_diffusion_2_leaves_the_last_layer_out(tmp_path: Path) -> None:
    """The file has a layer more than its text encoder in diffusers' layout."""
    source = tiny.stable_diffusion(tmp_path / "source", linear=True)
    path = written(source, tmp_path)
    files = Files([path])
    tensors = {name: files.tensor(name) for name in files.names() if "cond_stage" not in name}
    saved = LatentDiffusion.load(tmp_path / "saved")
    network = saved.prompts.readers["text_encoder"].network
    names = single_file.open_clip_names(network.config)  # type: ignore[arg-type]
    text = dict(stored(network, names))
    extra = {name.replace("resblocks.2.", "resblocks.3."): t for name, t in text.items() if "resblocks.2." in name}
    tensors |= {f"cond_stage_model.model.{name}": t for name, t in {**text, **extra}.items()}
    save_file({name: t.clone() for name, t in tensors.items()}, path)
    ours = LatentDiffusion.load(path)
    assert len(ours.prompts.readers["text_encoder"].network.stack.blocks) == 3  # type: ignore[union-attr]
    close(ours.encode_prompts(["cat"]).context_NTD, saved.encode_prompts(["cat"]).context_NTD)
    assert ours.pipeline.scheduler["prediction_type"] == "epsilon"


@pytest.mark.parametrize(("added", "metadata", "wanted"), [
    ({}, {}, "epsilon"), ({"v_pred": torch.zeros(1)}, {}, "v_prediction"),
    ({}, {"modelspec.prediction_type": "v"}, "v_prediction"), ({"v_pred": torch.zeros(1)},
                                                               {"modelspec.prediction_type": "epsilon"}, "epsilon"),
])  # fmt: skip
def test_what_the_network_predicts_as_files_say_it(
    added: dict[str, Tensor], metadata: dict[str, str], wanted: str, tmp_path: Path
) -> None:
    path = tmp_path / "f.safetensors"
    save_file({"model.diffusion_model.x": torch.zeros(1), **added}, path, metadata=metadata)
    files = Files([path])
    assert single_file.schedule("sdxl", files, files.under("model.diffusion_model."))["prediction_type"] == wanted


@pytest.mark.parametrize(("spread", "wanted"), [(0.05, "epsilon"), (0.2, "v_prediction")])
def test_what_an_sd_2_predicts_is_seen_by_its_weights(spread: float, wanted: str, tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    bias = spread * torch.randn(320, generator=torch.Generator().manual_seed(0))
    save_file({f"model.diffusion_model.{single_file.LAST_BIAS}": bias,
               "cond_stage_model.model.ln_final.weight": torch.zeros(4)}, path)  # fmt: skip
    files = Files([path])
    assert single_file.schedule("sd", files, files.under("model.diffusion_model."))["prediction_type"] == wanted


def test_more_channels_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 9, 3, 3),
               "cond_stage_model.transformer.x": torch.zeros(1)}, path)  # fmt: skip
    assert single_file.channels(path) == ("sd", 9)


@pytest.mark.parametrize(("name", "said"), [
    ("lora_unet_down_blocks_0.lora_down.weight", "a LoRA"), ("control_model.x", "a ControlNet"),
    ("conditioner.embedders.0.model.x", "refiner"), ("down_blocks.0.x", "diffusers' layout"), ("x", "none that is"),
])  # fmt: skip
def test_other_files_are_named(name: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    save_file({name: torch.zeros(1)}, path)
    with pytest.raises(ConjureError, match=said):
        single_file.open_file(path)


def test_files_without_all_parts_are_refused(tmp_path: Path) -> None:
    path = written(tiny.stable_diffusion(tmp_path / "source"), tmp_path)
    files = Files([path])
    save_file({name: files.tensor(name).clone() for name in files.names() if "first_stage" not in name}, path)
    with pytest.raises(ConjureError, match="no vae"):
        single_file.open_file(path)


def test_pickles_whatever_they_are_called_and_cut_off_files(tmp_path: Path) -> None:
    path = tmp_path / "renamed.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"\x80\x02.")
    with pytest.raises(ConjureError, match="is a pickle"):
        single_file.open_file(path)
    path.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(ConjureError, match="is a pickle"):
        single_file.open_file(path)
    save_file({"x": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ConjureError, match="not a whole safetensors file"):
        single_file.open_file(path)
