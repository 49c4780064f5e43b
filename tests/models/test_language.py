"""A loaded model as its users meet it: text in, text and vectors out, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from conjure.core.errors import ConjureError
from conjure.models import sentence
from conjure.models.language import LanguageModel, padded
from tests.models.public.references import close, randomised, saved

WORDS = ["[PAD]", "[UNK]", "<s>", "</s>", *(f"w{i}" for i in range(92))]
LLAMA: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip


def with_tokenizer(folder: Path) -> Path:
    """One token a word, <s> in front."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    backend.save(str(folder / "tokenizer.json"))
    said = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, LanguageModel]:
    reference = randomised(tf.LlamaForCausalLM(tf.LlamaConfig(**LLAMA)))
    return reference, LanguageModel.load(with_tokenizer(saved(reference, tmp_path_factory.mktemp("llama"))))


def test_prompts_of_different_length_are_continued_as_the_reference_does(llama: tuple[Any, LanguageModel]) -> None:
    reference, ours = llama
    prompts = ["w5 w6 w7", "w9"]
    found = ours.generate(prompts, tokens=6, temperature=0)
    for prompt, each in zip(prompts, found, strict=True):
        ids = torch.tensor([[2, *(4 + int(word[1:]) for word in prompt.split())]])
        wanted = reference.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()
        assert each.ids == [token for token in wanted if token != 3]


def test_the_files_own_generation_config_is_the_default(llama: tuple[Any, LanguageModel], tmp_path: Path) -> None:
    _, ours = llama
    folder = with_tokenizer(ours.save(tmp_path))
    assert LanguageModel.load(folder).decoding().temperature == 0
    said = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1, "eos_token_id": [3, 7],
            "max_new_tokens": 9, "begin_suppress_tokens": [4]}  # fmt: skip
    (folder / "generation_config.json").write_text(json.dumps(said))
    again = LanguageModel.load(folder)
    decoding = again.decoding(top_k=7)
    assert (decoding.temperature, decoding.top_p, decoding.top_k, decoding.tokens) == (0.6, 0.9, 7, 9)
    assert decoding.repetition_penalty == 1.1 and decoding.suppress_first == (4,) and again.end == (3, 7)


def test_vectors_of_texts_do_not_depend_on_the_texts_beside_them(llama: tuple[Any, LanguageModel]) -> None:
    _, ours = llama
    texts = ["w1 w2 w3 w4", "w8", "w30 w31"]
    together = ours.embed(texts)
    assert together.shape == (3, 32)
    for text, vector in zip(texts, together, strict=True):
        close(ours.embed([text])[0], vector)


def test_pooling_follows_modules_json(tmp_path: Path) -> None:
    config = tf.BertConfig(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                           num_attention_heads=4, max_position_embeddings=64)  # fmt: skip
    reference = randomised(tf.BertModel(config))
    folder = with_tokenizer(saved(reference, tmp_path))
    ours = LanguageModel.load(folder)
    ids = torch.tensor([[2, 5, 6, 7]])
    with torch.no_grad():
        states = reference(ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
    close(ours.embed(["w1 w2 w3"])[0], states.mean(0))
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""},
               {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
               {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"}]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 3}))
    ours = LanguageModel.load(folder)
    with torch.no_grad():
        first = reference(ids[:, :3], attention_mask=torch.ones(1, 3)).last_hidden_state[0, 0]
    close(ours.embed(["w1 w2 w3"])[0], F.normalize(first, dim=0))
    (folder / "modules.json").write_text(json.dumps([{"type": "x.Pooling", "path": "../.."}]))
    with pytest.raises(ConjureError, match="outside the model's folder"):
        LanguageModel.load(folder).embed(["w1"])


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"])
def test_every_pooling_equals_its_formula_with_padding_on_either_side(mode: Any) -> None:
    states = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    weights = torch.arange(1, 5).float()[:, None]
    wanted = {
        "mean": states.mean(0), "cls": states[0], "max": states.amax(0), "lasttoken": states[-1],
        "weightedmean": (states * weights).sum(0) / weights.sum(), "mean_sqrt_len_tokens": states.sum(0) / 2,
    }[mode]  # fmt: skip
    for left in (False, True):
        row = torch.full((1, 6, 8), 1e3)
        mask = torch.zeros(1, 6, dtype=torch.long)
        at = slice(2, 6) if left else slice(0, 4)
        row[0, at], mask[0, at] = states, 1
        close(sentence.pooled(row, mask, mode)[0], wanted)


def test_what_a_model_cannot_do_is_said(llama: tuple[Any, LanguageModel], tmp_path: Path) -> None:
    _, ours = llama
    with pytest.raises(ConjureError, match="ids from 0 to 95, got 5 to 96"):
        ours.logits([[5, 96]])
    with pytest.raises(ConjureError, match="at least one"):
        ours.logits(torch.zeros(1, 0, dtype=torch.long))
    with pytest.raises(ConjureError, match="at least one"):
        ours.generate([])
    with pytest.raises(ConjureError, match="unknown option 'temprature'") as error:
        ours.generate(["w1"], temprature=1)
    assert "temperature" in error.value.hint
    with pytest.raises(ConjureError, match="at most 40 tokens"):
        ours.generate([" ".join(["w1"] * 50)])
    config = tf.BertConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
    bert = LanguageModel.load(saved(randomised(tf.BertModel(config)), tmp_path))
    assert bert.can == {"embed"}
    with pytest.raises(ConjureError, match="writes no text"):
        bert.continued([[5]])


def test_an_encoder_decoder_rewrites_as_the_reference_does(tmp_path: Path) -> None:
    config = tf.T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
                         decoder_start_token_id=0, pad_token_id=0, eos_token_id=3)  # fmt: skip
    reference = randomised(tf.T5ForConditionalGeneration(config))
    ours = LanguageModel.load(with_tokenizer(saved(reference, tmp_path)))
    rows = [[5, 6, 7, 8], [9, 10]]
    for beams in (1, 3):
        found = ours.continued(rows, beams=beams, tokens=8, **({} if beams > 1 else {"temperature": 0}))
        for row, each in zip(rows, found, strict=True):
            wanted = reference.generate(torch.tensor([row]), max_new_tokens=8, do_sample=False, num_beams=beams)[0, 1:]
            kept = wanted.tolist()
            assert each.ids == (kept[: kept.index(3)] if 3 in kept else kept)


def test_rows_are_filled_up_on_either_side() -> None:
    ids, mask = padded([[1, 2, 3], [4]], 9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    ids, mask = padded([[1, 2, 3], [4]], 9, left=True)
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4]] and mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def alike(a: torch.Tensor, b: torch.Tensor) -> float:
    """Cosine of the angle between all values of both."""
    return F.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()


@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8", "int4"])
def test_small_weights_say_nearly_the_same(weights: Any, llama: tuple[Any, LanguageModel]) -> None:
    _, ours = llama
    small = LanguageModel.load(ours.folder, weights=weights)
    ids = torch.tensor([[2, 5, 6, 7, 8], [0, 0, 2, 9, 10]])
    mask = (ids != 0).long()
    wanted = ours.network(ids, positions=(mask.cumsum(1) - 1).clamp_min(0), mask_BT=mask)
    likeness = {"fp32": 0.9999999, "bf16": 0.9999, "int8": 0.999, "int4": 0.9}[weights]
    assert alike(small.logits(ids, mask)[mask.bool()], wanted[mask.bool()]) > likeness
    assert small.generate(["w1 w2"], tokens=3)[0].ids


def test_small_weights_work_without_a_compiler(
    llama: tuple[Any, LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ours = llama
    monkeypatch.setattr("conjure.models.compiled.Compiled.supports", staticmethod(lambda config: "no compiler"))
    ids = torch.tensor([[2, 5, 6, 7, 8]])
    for weights, likeness in (("bf16", 0.9995), ("int8", 0.999), ("int4", 0.9)):
        small = LanguageModel.load(ours.folder, weights=weights)  # type: ignore[arg-type]
        assert alike(small.logits(ids), ours.logits(ids)) > likeness
        assert len(small.generate(["w1 w2"], tokens=3)[0].ids) <= 3
