"""Files of textual inversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.models.latent_diffusion import LatentDiffusion
from conjure.models.public.embeddings import read
from tests.models.public import tiny_pipelines as tiny
from tests.models.public.references import close


@pytest.mark.parametrize(("tensors", "words"), [
    ({"<toy>": torch.ones(8)}, [("<toy>", {"": (1, 8)})]),
    ({"<a>": torch.ones(2, 8), "<b>": torch.ones(8)}, [("<a>", {"": (2, 8)}), ("<b>", {"": (1, 8)})]),
    ({"emb_params": torch.ones(3, 8)}, [("name", {"": (3, 8)})]),
    ({"clip_l": torch.ones(2, 8), "clip_g": torch.ones(2, 12)}, [("name", {"text_encoder_2": (2, 12),
                                                                           "text_encoder": (2, 8)})]),
])  # fmt: skip
def test_dialects(tensors: dict[str, Tensor], words: list[Any], tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "name.safetensors")
    found = read(tmp_path / "name.safetensors")
    assert [(word.text, {k: tuple(v.shape) for k, v in word.vectors.items()}) for word in found] == words


@pytest.mark.parametrize("tensors", [{"x": torch.ones(2, 2, 2)}, {"x": torch.ones(65, 2)}, {"x": torch.ones(2).int()}])
def test_what_is_none(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ConjureError, match="expected vectors"):
        read(tmp_path / "x.safetensors")


def test_pickles_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"PK")
    with pytest.raises(ConjureError, match="is a pickle"):
        read(tmp_path / "x.pt")
    with pytest.raises(ConjureError, match="no such embedding"):
        read(tmp_path / "x.safetensors")


@torch.no_grad()
def test_a_model_learns_the_words_that_fit_it(tmp_path: Path) -> None:
    theirs = tiny.stable_diffusion_xl(tmp_path / "source")
    theirs.save_pretrained(tmp_path / "saved")
    generator = torch.Generator().manual_seed(0)
    both = {"clip_l": torch.randn(2, 64, generator=generator), "clip_g": torch.randn(2, 128, generator=generator)}
    save_file(both, tmp_path / "toy.safetensors")
    for encoder, tokenizer, vectors in ((theirs.text_encoder, theirs.tokenizer, both["clip_l"]),
                                        (theirs.text_encoder_2, theirs.tokenizer_2, both["clip_g"])):
        theirs.load_textual_inversion(vectors, token="toy", text_encoder=encoder, tokenizer=tokenizer)
    ours = LatentDiffusion.load(tmp_path / "saved", words=[tmp_path / "toy.safetensors"])
    wanted = theirs.encode_prompt("a toy cat", device="cpu", do_classifier_free_guidance=False)
    told = ours.encode_prompts(["a toy cat"])
    close(told.context_NTD, wanted[0])
    assert told.pooled_NP is not None
    close(told.pooled_NP, wanted[2])
    save_file({"<x>": torch.zeros(2, 32)}, tmp_path / "x.safetensors")
    with pytest.raises(ConjureError, match="vectors of width 32, this model's text encoders have: text_encoder 64"):
        ours.learn(tmp_path / "x.safetensors")
