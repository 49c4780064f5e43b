"""Every encoder family and head against tiny random models of the reference implementation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from conjure.core.errors import ConjureError
from conjure.models.language import LanguageModel
from tests.models.public.references import batch, close, randomised, saved

BERT: dict[str, Any] = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
                        "num_attention_heads": 4, "max_position_embeddings": 64, "num_labels": 5}  # fmt: skip
DEBERTA: dict[str, Any] = BERT | {"relative_attention": True, "pos_att_type": "c2p|p2c", "position_biased_input": False}
V2: dict[str, Any] = DEBERTA | {"position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True}
DISTIL: dict[str, Any] = {"vocab_size": 96, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "num_labels": 5,
                          "max_position_embeddings": 64}  # fmt: skip

VARIANTS: dict[str, Callable[[], Any]] = {
    "bert_masked": lambda: tf.BertForMaskedLM(tf.BertConfig(**BERT)),
    "bert_classes": lambda: tf.BertForSequenceClassification(tf.BertConfig(**BERT)),
    "bert_tokens": lambda: tf.BertForTokenClassification(tf.BertConfig(**BERT)),
    "bert_answers": lambda: tf.BertForQuestionAnswering(tf.BertConfig(**BERT | {"num_labels": 2})),
    "bert_pretraining": lambda: tf.BertForPreTraining(tf.BertConfig(**BERT)),
    "bert": lambda: tf.BertModel(tf.BertConfig(**BERT)),
    "roberta_masked": lambda: tf.RobertaForMaskedLM(tf.RobertaConfig(**BERT, type_vocab_size=1, pad_token_id=0)),
    "roberta_classes": lambda: tf.RobertaForSequenceClassification(tf.RobertaConfig(**BERT, pad_token_id=0)),
    "xlm_roberta": lambda: tf.XLMRobertaForMaskedLM(tf.XLMRobertaConfig(**BERT, pad_token_id=0)),
    "xlm_roberta_base": lambda: tf.XLMRobertaModel(tf.XLMRobertaConfig(**BERT, pad_token_id=0)),
    "distilbert_masked": lambda: tf.DistilBertForMaskedLM(tf.DistilBertConfig(**DISTIL)),
    "distilbert_classes": lambda: tf.DistilBertForSequenceClassification(tf.DistilBertConfig(**DISTIL)),
    "mpnet": lambda: tf.MPNetModel(tf.MPNetConfig(**BERT)),
    "mpnet_masked": lambda: tf.MPNetForMaskedLM(tf.MPNetConfig(**BERT)),
    "mpnet_classes": lambda: tf.MPNetForSequenceClassification(tf.MPNetConfig(**BERT)),
    "deberta_v1": lambda: tf.DebertaModel(tf.DebertaConfig(**DEBERTA)),
    "deberta_v2": lambda: tf.DebertaV2Model(tf.DebertaV2Config(**V2)),
    "deberta_v2_own_keys": lambda: tf.DebertaV2Model(tf.DebertaV2Config(**DEBERTA)),
    "deberta_v2_convolution": lambda: tf.DebertaV2Model(tf.DebertaV2Config(**V2, conv_kernel_size=3, conv_act="gelu")),
    "deberta_v3_classes": lambda: tf.DebertaV2ForSequenceClassification(tf.DebertaV2Config(**V2)),
    "llama_classes": lambda: tf.LlamaForSequenceClassification(tf.LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_labels=5,
        pad_token_id=0)),
}  # fmt: skip


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, LanguageModel]:
    model = VARIANTS[request.param]()
    model.config._attn_implementation = "eager"
    reference = randomised(model)
    return reference, LanguageModel.load(saved(reference, tmp_path_factory.mktemp(request.param)))


def inputs(reference: Any) -> tuple[dict[str, Any], Any]:
    ids, mask = batch()
    if reference.config.model_type == "mpnet":  # its padding is 1, whatever the config says
        ids[mask == 0] = 1
    given = {"input_ids": ids, "attention_mask": mask}
    if getattr(reference.config, "type_vocab_size", 0) == 2 and reference.config.model_type == "bert":
        given["token_type_ids"] = (torch.arange(13)[None] > 5).long().expand(3, -1)
    return given, mask


def test_hidden_states_equal_the_reference(pair: tuple[Any, LanguageModel]) -> None:
    reference, ours = pair
    given, mask = inputs(reference)
    with torch.no_grad():
        wanted = reference.base_model(**given).last_hidden_state
    close(ours.hidden(**given), wanted, mask)


def test_logits_equal_the_reference(pair: tuple[Any, LanguageModel]) -> None:
    reference, ours = pair
    given, mask = inputs(reference)
    if type(reference).__name__.endswith("Model"):
        with pytest.raises(ConjureError, match="no head"):
            ours.logits(**given)
        return
    with torch.no_grad():
        out = reference(**given)
    if "start_logits" in out:
        wanted = torch.stack([out.start_logits, out.end_logits], dim=-1)
    else:
        wanted = out.prediction_logits if "prediction_logits" in out else out.logits
    close(ours.logits(**given), wanted, mask if wanted.dim() == 3 else None)


def test_a_head_can_stand_on_a_file_without_the_prefix(tmp_path: Path) -> None:
    reference = randomised(tf.BertModel(tf.BertConfig(**BERT)))
    folder = saved(reference, tmp_path)
    config = (folder / "config.json").read_text().replace("BertModel", "BertForMaskedLM")
    (folder / "config.json").write_text(config)
    with pytest.raises(ConjureError, match=r"missing cls\.predictions\.transform\.dense\.weight"):
        LanguageModel.load(folder)
