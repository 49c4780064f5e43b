"""Tiny random models of the reference implementation with tokenizers of whole words, saved as the hub has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers as tf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from tests.models.public.references import randomised, saved

WORDS = "the sea was blue and red Alice wrote a letter in Paris good bad sport politics ? . , : who it is of { } 1 2 3"
SPECIALS = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
DIMS: dict[str, Any] = dict(  # noqa: C408
    vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
)
PAIR: dict[str, Any] = dict(  # noqa: C408
    vocab_size=96, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
    encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=40, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    decoder_start_token_id=2, forced_eos_token_id=None,
)  # fmt: skip
ROLES = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
TEMPLATE = "{% for m in messages %}{{ m.role + ' : ' + m.content + ' . ' }}{% endfor %}"


def words(folder: Path, *, ends: bool = False, around: bool = False, more: tuple[str, ...] = (), **config: Any) -> None:
    """Writes the tokenizer: every word a token; unknown ones `<unk>`."""
    listed = list(dict.fromkeys([*SPECIALS, *more, *WORDS.split(), *(f"w{i}" for i in range(96))]))[:96]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(listed)}, unk_token="<unk>"))
    backend.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in [*SPECIALS, *more]])
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    if around:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    elif ends:
        backend.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", 2)]
        )
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**ROLES, **config}))


def decoder(folder: Path, *, template: str = "", labels: list[str] | None = None, positions: int = 256) -> Path:
    sizes = dict(DIMS, num_key_value_heads=2, max_position_embeddings=positions, bos_token_id=1, eos_token_id=2)
    saved(randomised(tf.LlamaForCausalLM(tf.LlamaConfig(**sizes))), folder)
    words(folder, **({"chat_template": template} if template else {}))
    return folder


def encoder(folder: Path, head: str, labels: list[str] | None = None) -> Path:
    named = {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}} if labels else {}
    config = tf.RobertaConfig(**DIMS, max_position_embeddings=34, pad_token_id=0, type_vocab_size=1, **named)
    saved(randomised(getattr(tf, f"Roberta{head}")(config)), folder)
    words(folder, around=True, tokenizer_class="RobertaTokenizer")
    return folder


def marian(folder: Path, **config: Any) -> Path:
    saved(randomised(tf.MarianMTModel(tf.MarianConfig(**PAIR, scale_embedding=True))), folder)
    words(folder, ends=True, **config)
    return folder


def m2m100(folder: Path) -> Path:
    saved(randomised(tf.M2M100ForConditionalGeneration(tf.M2M100Config(**PAIR))), folder)
    words(folder, ends=True, more=("__en__", "__es__", "__fr__"), tokenizer_class="M2M100Tokenizer")
    return folder


def bart(folder: Path) -> Path:
    saved(randomised(tf.BartForConditionalGeneration(tf.BartConfig(**PAIR))), folder)
    words(folder, around=True, tokenizer_class="BartTokenizer")
    return folder


def t5(folder: Path, **more: Any) -> Path:
    config = tf.T5Config(
        vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0,
        eos_token_id=2, pad_token_id=0, **more,
    )  # fmt: skip
    saved(randomised(tf.T5ForConditionalGeneration(config)), folder)
    words(folder, ends=True, tokenizer_class="T5Tokenizer")
    return folder
