"""Folders of diffusers: which files are read, and what is said where something is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from conjure.core.errors import ConjureError
from conjure.models.public import diffusers
from conjure.models.public.diffusers import Files, fill, kind_of, stored, weights
from conjure.models.public.names import Map, rows
from tests.models.public import tiny_pipelines as tiny


def files(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        save_file({name: torch.zeros(1)}, folder / f"{name}.safetensors")
    return folder


STEM = "diffusion_pytorch_model"


@pytest.mark.parametrize(("there", "chosen"), [
    ([STEM], [STEM]),
    ([STEM, f"{STEM}.fp16", f"{STEM}.non_ema"], [STEM]),
    ([f"{STEM}.fp16", f"{STEM}.bf16"], [f"{STEM}.bf16"]),
    ([f"{STEM}.fp16"], [f"{STEM}.fp16"]),
    ([f"{STEM}-00001-of-00002", f"{STEM}-00002-of-00002"], [f"{STEM}-00001-of-00002", f"{STEM}-00002-of-00002"]),
    (["model.fp16-00001-of-00002", "model.fp16-00002-of-00002", "model"], ["model"]),
    (["model.fp16-00001-of-00002", "model.fp16-00002-of-00002"],
     ["model.fp16-00001-of-00002", "model.fp16-00002-of-00002"]),
    (["model.fp16-00001-of-00001"], ["model.fp16-00001-of-00001"]),
    (["another"], ["another"]),
])  # fmt: skip
def test_one_set_of_weights_is_read(there: list[str], chosen: list[str], tmp_path: Path) -> None:
    found = weights(files(tmp_path / "unet", *there))
    assert [path.name for path in found] == [f"{name}.safetensors" for name in chosen]


def test_missing_shards_and_pickles(tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="1 of 2 files"):
        weights(files(tmp_path / "a", f"{STEM}-00001-of-00002"))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / f"{STEM}.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(ConjureError, match="there are none") as caught:
        weights(tmp_path / "b")
    assert "pickle" in caught.value.hint


def test_shards_are_one_set_of_tensors(tmp_path: Path) -> None:
    read = Files(weights(files(tmp_path, f"{STEM}-00001-of-00002", f"{STEM}-00002-of-00002")))
    assert read.names() == [f"{STEM}-00001-of-00002", f"{STEM}-00002-of-00002"] and read.shape(read.names()[1]) == (1,)
    assert Files(read.paths, "diffusion_").names()[0] == "pytorch_model-00001-of-00002"


@pytest.mark.parametrize(("parts", "kind"), [
    ({"unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel"}, "sd"),
    ({"unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel", "text_encoder_2": "C"}, "sdxl"),
    ({"transformer": "SD3Transformer2DModel", "text_encoder": "C"}, "sd3"),
    ({"transformer": "FluxTransformer2DModel", "text_encoder": "C"}, "flux"),
    ({"transformer": "DiTTransformer2DModel"}, "dit"),
])  # fmt: skip
def test_kinds(parts: dict[str, str], kind: str) -> None:
    index = {"_class_name": "P", "safety_checker": [None, None], **{k: ["diffusers", v] for k, v in parts.items()}}
    assert kind_of(index) == kind


def test_other_pipelines_are_refused_by_name() -> None:
    with pytest.raises(ConjureError, match="AudioPipeline: cannot run a UNet1DModel"):
        kind_of({"_class_name": "AudioPipeline", "unet": ["diffusers", "UNet1DModel"]})
    with pytest.raises(ConjureError, match="cannot run the parts vae"):
        kind_of({"_class_name": "P", "vae": ["diffusers", "AutoencoderKL"]})


def test_a_part_that_is_not_there(tmp_path: Path) -> None:
    tiny.stable_diffusion(tmp_path / "source").save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "text_encoder").rename(tmp_path / "gone")
    with pytest.raises(ConjureError, match="the part 'text_encoder' is missing"):
        diffusers.open_pipeline(tmp_path / "saved")
    index = json.loads((tmp_path / "saved" / "model_index.json").read_text())
    (tmp_path / "saved" / "model_index.json").write_text(json.dumps(index | {"vae": ["diffusers", "VQModel"]}))
    with pytest.raises(ConjureError, match="got VQModel"):
        diffusers.open_pipeline(tmp_path / "saved")
    (tmp_path / "saved" / "model_index.json").write_text("{")
    with pytest.raises(ConjureError, match="no valid JSON"):
        diffusers.open_pipeline(tmp_path / "saved")


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both, self.norm = nn.Linear(3, 4), nn.LayerNorm(4)


NAMES: Map = {"both": rows("top.q", "top.k", zeros=True), "norm": "top.norm"}


def laid_out() -> Two:
    with torch.device("meta"):
        return Two()


def test_fill_and_back(tmp_path: Path) -> None:
    source = Two()
    source.both.bias.data[2:] = 0
    saved = dict(stored(source, NAMES))
    assert sorted(saved) == [f"top.{name}.{each}" for name in ("k", "norm", "q") for each in ("bias", "weight")]
    del saved["top.k.bias"]
    for prefix in ("top.", ""):  # half precision, with and without the prefix
        half = {name.replace("top.", prefix): t.detach().half() for name, t in saved.items()}
        save_file(half, tmp_path / "f.safetensors")
        made = fill(laid_out(), NAMES, Files([tmp_path / "f.safetensors"]), what="it", prefix="top.")
        for name, tensor in source.state_dict().items():
            got = made.state_dict()[name]
            assert got.dtype == torch.float32 and torch.equal(got, tensor.half().float())


def test_misfits_are_listed(tmp_path: Path) -> None:
    saved = {name: t.detach() for name, t in stored(Two(), NAMES)}
    saved["top.norm.weigth"] = saved.pop("top.norm.weight")
    saved["top.norm.bias"] = torch.zeros(5)
    save_file({name: t.clone() for name, t in saved.items()}, tmp_path / "f.safetensors")
    with pytest.raises(ConjureError) as caught:
        fill(laid_out(), NAMES, Files([tmp_path / "f.safetensors"]), what="it")
    said = caught.value.message
    assert "missing top.norm.weight [4] (there is top.norm.weigth)" in said
    assert "misshapen top.norm.bias: expected [4], got [5]" in said and "unexpected top.norm.weigth [4]" in said
