"""The tokenizer of CLIP, which all public models of that line share: files that hold a whole picture model in one
carry none.

The merges are those of OpenAI's release (https://github.com/openai/CLIP, MIT licence, copyright 2021 OpenAI), the first
48,894 of `bpe_simple_vocab_16e6.txt`, as CLIP uses them (Radford et al. 2021, arXiv 2103.00020).
"""

from __future__ import annotations

import gzip
from pathlib import Path

from tokenizers import Regex, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from conjure.codecs.tokenizer import Tokenizer
from conjure.codecs.tokenizer_files import CLIP_WORDS, Parts, parse

MERGES = Path(__file__).with_name("clip_merges.txt.gz")
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77
"""Tokens of a text, these two included."""


def clip_tokenizer(pad: str = END) -> Tokenizer:
    """49,408 tokens. `pad` fills rows up: the end for OpenAI's models, "!" for OpenCLIP's."""
    lines = gzip.decompress(MERGES.read_bytes()).decode().splitlines()
    merges = [(first, second) for first, second in (line.split(" ") for line in lines)]
    octets = _octets()
    tokens = [*octets, *(f"{each}</w>" for each in octets), *(first + second for first, second in merges), BEGIN, END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Backend(models.BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token=END))
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )  # fmt: skip
    backend.add_special_tokens(list(dict.fromkeys((BEGIN, END, pad))))
    backend.post_processor = processors.TemplateProcessing(
        single=[BEGIN, "$A", END], special_tokens=[(BEGIN, vocabulary[BEGIN]), (END, vocabulary[END])]
    )
    roles = {"bos": BEGIN, "eos": END, "unk": END, "pad": pad}
    made = parse(backend.to_str().encode(), MERGES.name)
    return Tokenizer(made, parts=Parts(backend=made, roles=roles, config={"model_max_length": LENGTH}))


def _octets() -> list[str]:
    """The 256 bytes in CLIP's order: those with a character of their own first, then those that borrow one."""
    own = [chr(c) for c in (*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100))]
    return own + sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(own))
