"""Tiny random models of the reference implementation that write letters for frames of a wave, as the hub has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf
from safetensors.torch import save_file

from tests.models.public.references import randomised

RATE = 16_000
ROLES = ("<pad>", "<s>", "</s>", "<unk>", "|")
LETTERS = "etaonihsr"
LANGUAGES = {"eng": LETTERS, "deu": LETTERS + "äöüß", "azj-script_latin": "əğçsoa"}
HEARD: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "pad_token_id": 0,
    "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
LARGE: dict[str, Any] = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}


def alphabet(letters: str) -> dict[str, int]:
    return {text: index for index, text in enumerate((*ROLES, *letters))}


def loud(model: Any) -> Any:
    """A random network writes one letter for ever; in this one all letters are as likely, and no role is."""
    sound = torch.from_numpy(voice(2))
    with torch.no_grad():
        heard = model(((sound - sound.mean()) / sound.std())[None]).logits[0]
        scale = 3 / heard.std(0)
        model.lm_head.weight *= scale[:, None]
        model.lm_head.bias.copy_(scale * (model.lm_head.bias - heard.mean(0)))
        model.lm_head.bias[1:4] -= 1000
    return model


def write_files(folder: Path, vocabulary: dict[str, Any], *, mask: bool, **tokenizer: Any) -> None:
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    said = {"tokenizer_class": "Wav2Vec2CTCTokenizer", "pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>",
            "eos_token": "</s>", "word_delimiter_token": "|", "do_lower_case": False}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps({**said, **tokenizer}))
    front = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, "sampling_rate": RATE,
             "padding_value": 0.0, "do_normalize": True, "return_attention_mask": mask}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(front))


def letters(folder: Path, *, kind: str = "base", seed: int = 0, **tokenizer: Any) -> Path:
    """`kind` is base, large or hubert."""
    size = {"vocab_size": len(ROLES) + len(LETTERS)}
    if kind == "hubert":
        model: Any = tf.HubertForCTC(tf.HubertConfig(**HEARD, **size))
    else:
        model = tf.Wav2Vec2ForCTC(tf.Wav2Vec2Config(**HEARD, **size, **(LARGE if kind == "large" else {})))
    loud(randomised(model, seed)).save_pretrained(folder)
    write_files(folder, alphabet(LETTERS), mask=kind == "large", **tokenizer)
    return folder


def mms(folder: Path, adapters: tuple[str, ...] = ("deu", "azj-script_latin")) -> Path:
    """Three languages; the one in the weights is English."""
    folder.mkdir(parents=True, exist_ok=True)
    base: dict[str, torch.Tensor] = {}
    for number, (language, own) in enumerate(LANGUAGES.items()):
        config = tf.Wav2Vec2Config(**HEARD, **LARGE, vocab_size=len(ROLES) + len(own), adapter_attn_dim=4)
        model: Any = randomised(tf.Wav2Vec2ForCTC(config), number)
        base = base or model.state_dict()
        model.load_state_dict({n: t for n, t in base.items() if n not in model._get_adapters()}, strict=False)
        if language == "eng":
            loud(model).save_pretrained(folder)
        if language in adapters:
            brought = loud(model)._get_adapters() if language != "eng" else model._get_adapters()
            tensors = {name: each.contiguous() for name, each in brought.items()}
            save_file(tensors, folder / f"adapter.{language}.safetensors", {"format": "pt"})
    write_files(folder, {code: alphabet(own) for code, own in LANGUAGES.items()}, mask=True, target_lang="eng")
    return folder


def voice(seconds: float, seed: int = 1) -> np.ndarray:
    """Buzzing that changes its pitch and colour, four times a second."""
    rng, at = np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE
    pitch = np.repeat(rng.uniform(90, 400, len(at) // 4000 + 1), 4000)[: len(at)]
    phase = np.cumsum(2 * np.pi * pitch / RATE)
    buzz = sum(np.sin(n * phase) * rng.uniform(0, 1) for n in range(1, 12))
    noise = 0.3 * rng.standard_normal(len(at))
    return (0.1 * (buzz + noise) * np.sin(np.pi * 4 * at) ** 2).astype(np.float32)
