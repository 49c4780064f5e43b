from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from conjure.core.errors import ConjureError
from conjure.models.public import gguf_tokenizer

TEXTS = [
    "Hello world, it's 12345 things at 3:45 PM!", "naïve café, Ünïcode — ελληνικά и русский 中文字符 emoji 🙂🎉",
    "  two  spaces\n\n\tand tabs\r\n", "def f(x):\n    return x**2  # comment", "I'LL and we've 2024-01-02", "",
    "don't  DON'T", "数字１２３ и 456", "a<|end|>b", "trailing space ",
]  # fmt: skip
CORPUS = [*TEXTS, "the cat sat on the mat and the hat", "things and other things, 12345 or 3456"] * 3


def trained(pattern: str) -> Tokenizer:
    """Byte-level BPE as a hub folder has it, with two special tokens and one of its user."""
    made = Tokenizer(models.BPE())
    cut: list[Any] = [pre_tokenizers.Split(Regex(pattern), behavior="isolated")]
    made.pre_tokenizer = pre_tokenizers.Sequence([*cut, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  special_tokens=["<|begin|>", "<|end|>"], show_progress=False)  # fmt: skip
    made.train_from_iterator(CORPUS, trainer)
    made.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return made


def keys(made: Tokenizer, **more: Any) -> dict[str, Any]:
    """What the converter writes of it."""
    ids = made.get_vocab(with_added_tokens=True)
    tokens = sorted(ids, key=lambda text: ids[text])
    kinds = [3 if text in ("<|begin|>", "<|end|>") else 4 if text == "<think>" else 1 for text in tokens]
    merges = [" ".join(pair) for pair in json.loads(made.to_str())["model"]["merges"]]
    said = {"model": "gpt2", "pre": "gpt-2", "tokens": tokens, "token_type": np.array(kinds, np.int32),
            "merges": merges, "bos_token_id": 0, "eos_token_id": 1, **more}  # fmt: skip
    return {f"tokenizer.ggml.{name}": value for name, value in said.items()}


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")  # fmt: skip


@pytest.mark.parametrize(("name", "pattern"), [
    ("gpt-2", GPT2), ("llama-bpe", LLAMA3), ("qwen2", LLAMA3.replace("{1,3}", "")),
])  # fmt: skip
def test_byte_level_ids_are_those_of_the_tokenizer_it_was_made_from(name: str, pattern: str) -> None:
    made = trained(pattern)
    ours = gguf_tokenizer.tokenizer(keys(made, pre=name), "m.gguf")
    made.encode_special_tokens = True  # text is text
    for text in [*TEXTS, "x<think>y"]:
        expected = made.encode(text, add_special_tokens=False).ids
        assert ours.encode(text) == expected, text
        assert ours.decode(expected) == made.decode(expected)
    assert ours.size == made.get_vocab_size()


@pytest.mark.parametrize("algorithm", [True, False])
def test_sentencepiece_ids_are_those_of_the_library(tmp_path: Path, algorithm: bool) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text.replace("\n", " ") for text in CORPUS if text]), model_prefix=str(tmp_path / "m"),
        vocab_size=400, model_type="bpe", byte_fallback=True, add_dummy_prefix=algorithm, hard_vocab_limit=False,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "m.model"))
    pieces = range(model.vocab_size())
    kinds = [2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1 for i in pieces]
    said = {"model": "llama", "tokens": [model.id_to_piece(i) for i in pieces], "token_type": np.array(kinds, np.int32),
            "scores": np.array([model.get_score(i) for i in pieces], np.float32), "unknown_token_id": model.unk_id(),
            "bos_token_id": model.bos_id(), "eos_token_id": model.eos_id(), "add_space_prefix": algorithm}  # fmt: skip
    ours = gguf_tokenizer.tokenizer({f"tokenizer.ggml.{name}": value for name, value in said.items()}, "m.gguf")
    for text in [*TEXTS, "<s>forged</s>"]:
        assert ours.encode(text) == model.encode(text), text
        assert ours.decode(model.encode(text)) == model.decode(model.encode(text))


def written(metadata: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    found = gguf_tokenizer.files(metadata, "m.gguf")
    return json.loads(found["tokenizer.json"]), json.loads(found["tokenizer_config.json"])


@pytest.mark.parametrize(("more", "ids"), [
    ({}, []),
    ({"add_bos_token": True}, ["<|begin|>"]),
    ({"add_bos_token": True, "add_eos_token": True}, ["<|begin|>", "<|end|>"]),
    ({"add_eos_token": True}, ["<|end|>"]),
    ({"pre": "llama-bpe"}, ["<|begin|>"]),
    ({"pre": "llama-bpe", "add_bos_token": False}, []),
])  # fmt: skip
def test_what_encoding_adds(more: dict[str, Any], ids: list[str]) -> None:
    data, config = written(keys(trained(GPT2), **more))
    made = Tokenizer.from_str(json.dumps(data))
    texts = [made.id_to_token(i) for i in made.encode("the cat").ids]
    assert [text for text in texts if text.startswith("<|")] == ids
    assert (config["add_bos_token"], config["add_eos_token"]) == ("<|begin|>" in ids, "<|end|>" in ids)
    if ids:
        assert texts[0] == ids[0] or texts[-1] == ids[-1]
    assert (config["bos_token"], config["eos_token"]) == ("<|begin|>", "<|end|>")


def test_the_chat_templates_come_along() -> None:
    metadata = keys(trained(GPT2))
    assert "chat_template" not in written(metadata)[1]
    metadata["tokenizer.chat_template"] = "{{ messages }}"
    assert written(metadata)[1]["chat_template"] == "{{ messages }}"
    metadata |= {"tokenizer.chat_templates": ["tool_use"], "tokenizer.chat_template.tool_use": "{{ tools }}"}
    assert written(metadata)[1]["chat_template"] == [
        {"name": "default", "template": "{{ messages }}"}, {"name": "tool_use", "template": "{{ tools }}"},
    ]  # fmt: skip


def test_spaces_of_gemma_are_pieces_again() -> None:
    said = {"model": "llama", "tokens": ["<unk>", "  ", "▁a", "▁", "a"], "token_type": np.array([2, 4, 1, 1, 1]),
            "scores": np.zeros(5, np.float32), "add_space_prefix": False}  # fmt: skip
    ours = gguf_tokenizer.tokenizer({f"tokenizer.ggml.{name}": value for name, value in said.items()}, "m.gguf")
    assert ours.encode("a  a") == [4, 1, 4]


@pytest.mark.parametrize(("change", "message"), [
    ({"model": "bert"}, "kind 'bert'"), ({"pre": "qwen-2"}, "by the name 'qwen-2'"), ({"tokens": []}, "there is none"),
    ({"token_type": np.array([1, 2])}, "have 2 types"), ({"merges": ["a b c d"]}, "merges"),
    ({"merges": ["ab"]}, "merges"),
    ({"model": "llama"}, "have 0 scores"),
])  # fmt: skip
def test_what_cannot_be_read_is_said(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConjureError, match=message):
        gguf_tokenizer.tokenizer(keys(trained(GPT2), **change), "m.gguf")
