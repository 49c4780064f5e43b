"""What picture models are told of a text, beside the reference pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.models.prompts import Labels, Prompts
from conjure.models.public.diffusers import open_pipeline
from tests.models.public import tiny_pipelines as tiny
from tests.models.public.references import close

TEXTS = ["a photo of red apple on the table", "cat!"]
MAKERS = {
    "sd": tiny.stable_diffusion, "sd2": lambda folder: tiny.stable_diffusion(folder, linear=True),
    "sdxl": tiny.stable_diffusion_xl, "sd3": tiny.stable_diffusion_3,
    "sd3 without T5": lambda folder: tiny.stable_diffusion_3(folder, long=False), "flux": tiny.flux,
}  # fmt: skip


def both(maker: Any, folder: Path) -> tuple[Any, Prompts]:
    theirs = maker(folder / "source")
    theirs.save_pretrained(folder / "saved")
    pipeline = open_pipeline(folder / "saved")
    return theirs, Prompts.load(pipeline, int(pipeline.network.config.get("joint_attention_dim") or 0))


def reference(theirs: Any, texts: list[str], skip: int | None = None) -> tuple[Tensor, Tensor | None]:
    name = type(theirs).__name__
    if name == "StableDiffusionPipeline":
        if skip is None:
            return theirs.encode_prompt(texts, "cpu", 1, False)[0], None
        read = theirs.tokenizer(texts, padding="max_length", max_length=20, truncation=True, return_tensors="pt")
        hidden = theirs.text_encoder(read.input_ids, output_hidden_states=True).hidden_states[-1 - skip]
        return theirs.text_encoder.final_layer_norm(hidden), None
    if name == "StableDiffusionXLPipeline":
        found = theirs.encode_prompt(texts, device="cpu", do_classifier_free_guidance=False, clip_skip=skip)
        return found[0], found[2]
    if name == "FluxPipeline":
        return theirs.encode_prompt(texts, texts, device="cpu")[:2]
    found = theirs.encode_prompt(texts, texts, texts, device="cpu", do_classifier_free_guidance=False, clip_skip=skip)
    return found[0], found[2]


@pytest.mark.parametrize("name", MAKERS)
@torch.no_grad()
def test_conditions_equal_the_reference(name: str, tmp_path: Path) -> None:
    theirs, ours = both(MAKERS[name], tmp_path)
    for skip in (None, 1) if name != "flux" else (None,):
        context, pooled = reference(theirs, TEXTS, skip)
        told = ours(TEXTS, skip or 0)
        close(told.context_NTD, context)
        assert (told.pooled_NP is None) == (pooled is None)
        if pooled is not None and told.pooled_NP is not None:
            close(told.pooled_NP, pooled)


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    theirs, ours = both(tiny.stable_diffusion, tmp_path)
    text = "a photo of red apple on the table"
    ids = theirs.tokenizer(text)["input_ids"]
    wanted = theirs.tokenizer.decode(ids[19:-1])
    rest, most = ours.unread(text)
    assert len(ids) > 20 and rest and most == 20
    assert rest.replace(" ", "") == wanted.replace(" ", "")
    assert ours.unread("cat") == ("", 20)


@pytest.mark.parametrize("rows", [1, 3])
@torch.no_grad()
def test_learnt_words_equal_the_reference(rows: int, tmp_path: Path) -> None:
    theirs, ours = both(tiny.stable_diffusion, tmp_path)
    vectors = torch.randn(rows, 64, generator=torch.Generator().manual_seed(1))
    theirs.load_textual_inversion({"<toy>": vectors[0] if rows == 1 else vectors}, token="<toy>")
    ours.readers["text_encoder"].learn("<toy>", vectors)
    close(ours(["a <toy> cat"]).context_NTD, reference(theirs, ["a <toy> cat"])[0])
    with pytest.raises(ConjureError, match="knows '<toy>' already"):
        ours.readers["text_encoder"].learn("<toy>", vectors)
    with pytest.raises(ConjureError, match="width 32, this one has 64"):
        ours.readers["text_encoder"].learn("<other>", torch.zeros(1, 32))


def test_labels_are_names_numbers_or_nothing() -> None:
    labels = Labels(10, {"tench": 0, "goldfish": 1})
    assert labels(["Goldfish", "7", ""]).context_NTD.tolist() == [1, 7, 10]
    with pytest.raises(ConjureError, match="none called 'goldfsh'") as caught:
        labels(["goldfsh"])
    assert "goldfish" in caught.value.hint
