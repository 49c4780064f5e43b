"""Every encoder-decoder family against tiny random models of the reference implementation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from conjure.core.errors import ConjureError
from conjure.models.encoder_decoder import EncoderDecoder
from conjure.models.language import LanguageModel
from tests.models.public.references import batch, close, randomised, saved

T5: dict[str, Any] = {
    "vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16, "decoder_start_token_id": 0,
}  # fmt: skip
S2: dict[str, Any] = {
    "vocab_size": 96, "d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 40, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip

VARIANTS: dict[str, Callable[[], Any]] = {
    "t5": lambda: tf.T5ForConditionalGeneration(tf.T5Config(**T5)),
    "t5_v1_1": lambda: tf.T5ForConditionalGeneration(
        tf.T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
    "mt5": lambda: tf.MT5ForConditionalGeneration(tf.MT5Config(**T5)),
    "umt5": lambda: tf.UMT5ForConditionalGeneration(tf.UMT5Config(**T5)),
    "bart": lambda: tf.BartForConditionalGeneration(tf.BartConfig(**S2)),
    "mbart": lambda: tf.MBartForConditionalGeneration(tf.MBartConfig(**S2)),
    "marian": lambda: tf.MarianMTModel(tf.MarianConfig(**S2, scale_embedding=True, activation_function="swish")),
    "m2m100": lambda: tf.M2M100ForConditionalGeneration(tf.M2M100Config(**S2)),
}  # fmt: skip


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, LanguageModel]:
    model = VARIANTS[request.param]()
    model.config._attn_implementation = "eager"
    reference = randomised(model)
    return reference, LanguageModel.load(saved(reference, tmp_path_factory.mktemp(request.param)))


def inputs(left: bool = False) -> dict[str, Any]:
    ids, mask = batch(left=left)
    target = torch.randint(4, 96, (3, 7), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": target}


def test_logits_equal_the_reference(pair: tuple[Any, LanguageModel]) -> None:
    reference, ours = pair
    with torch.no_grad():
        wanted = reference(**inputs()).logits
    close(ours.logits(**inputs()), wanted)


def test_hidden_states_equal_the_reference(pair: tuple[Any, LanguageModel]) -> None:
    reference, ours = pair
    with torch.no_grad():
        out = reference.base_model(**inputs()) if hasattr(reference, "model") else reference(
            **inputs(), output_hidden_states=True)
    wanted = out.last_hidden_state if "last_hidden_state" in out else out.decoder_hidden_states[-1]
    close(ours.hidden(**inputs()), wanted)
    given = inputs()
    del given["decoder_input_ids"]
    close(ours.hidden(**given), out.encoder_last_hidden_state, given["attention_mask"])


def test_decoding_step_by_step_equals_one_pass(pair: tuple[Any, LanguageModel]) -> None:
    _, ours = pair
    network = ours.network
    assert isinstance(network, EncoderDecoder)
    given = inputs()
    reading = network.reading(given["input_ids"], given["attention_mask"])
    cache = reading.cache(3, 7)
    with torch.no_grad():
        steps = [reading(given["decoder_input_ids"][:, i : i + 1], cache=cache, last_only=True) for i in range(7)]
    close(torch.cat(steps, dim=1), ours.logits(**given))


def test_an_untied_head_on_disk_is_loaded(tmp_path: Path) -> None:
    reference = randomised(VARIANTS["t5_v1_1"]())
    folder = saved(reference, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = torch.randn(96, 32, generator=torch.Generator().manual_seed(3))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    ours = LanguageModel.load(folder)
    assert not ours.report.tied
    given = inputs()
    close(ours.logits(**given), ours.hidden(**given) @ tensors["lm_head.weight"].T)


@pytest.mark.parametrize("kind", ["bart", "mbart"])
def test_a_classifier_equals_the_reference(kind: str, tmp_path: Path) -> None:
    config = {"bart": tf.BartConfig, "mbart": tf.MBartConfig}[kind](**S2, num_labels=3)
    network = {"bart": tf.BartForSequenceClassification, "mbart": tf.MBartForSequenceClassification}[kind]
    reference = randomised(network(config))
    ours = LanguageModel.load(saved(reference, tmp_path))
    ids, mask = batch()
    ids[torch.arange(3), mask.sum(1) - 1] = config.eos_token_id
    with torch.no_grad():
        wanted = reference(ids, attention_mask=mask).logits
    close(ours.logits(ids, attention_mask=mask), wanted)
    close(ours.logits(ids[:1], attention_mask=mask[:1]), wanted[:1])
    assert ours.can == {"classify", "embed"}
    with pytest.raises(ConjureError, match="expected the end mark 2 in every row"):
        ours.logits(torch.full((1, 4), 5))
