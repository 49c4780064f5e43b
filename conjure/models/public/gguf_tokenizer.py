"""The tokenizer that a GGUF file holds, for the `tokenizers` library.

Two kinds: "gpt2", byte-level BPE whose way of cutting text into words is given by name, and "llama", a SentencePiece
vocabulary with scores. The names and their patterns are those of llama.cpp (src/llama-vocab.cpp).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from conjure.codecs import sentencepiece
from conjure.codecs.tokenizer import Tokenizer
from conjure.core.errors import ConjureError, suggest

UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6
_KEY = "tokenizer.ggml."

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+ENDING"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*ENDING"
    r"|NUMBER| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = _CASED.replace("ENDING", "").replace("NUMBER", r"\p{N}")
_GPT4O = _CASED.replace("ENDING", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?").replace("NUMBER", r"\p{N}{1,3}")
_FALCON = (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"

WORDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "gigachat", "roberta-bpe", "default"), (_GPT2,)
    ),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "dbrx", "smaug-bpe", "pixtral"), (_LLAMA3,)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez", "stablelm2"), (_QWEN2,)),
    **dict.fromkeys(
        ("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"), (r"\p{N}", _GPT2)
    ),
    **dict.fromkeys(("gpt-4o", "llama4"), (_GPT4O,)),
    **dict.fromkeys(("bloom", "poro-chat", "gpt3-finnish"), (_BLOOM,)),
    "tekken": (_TEKKEN,),
    "falcon": _FALCON,
}
"""Name of a way to cut text -> patterns, applied one after the other."""
WHOLE = ("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "tekken")
"""Where a word that is a token stays one, whatever the merges say; and where the text begins with BOS by default."""


def tokenizer(metadata: Mapping[str, Any], path: str) -> Tokenizer:
    """The tokenizer of a file with these keys; `path` is for errors."""
    with tempfile.TemporaryDirectory(prefix="conjure-gguf-") as folder:
        for name, data in files(metadata, path).items():
            (Path(folder) / name).write_bytes(data)
        return Tokenizer.load(Path(folder))


def files(metadata: Mapping[str, Any], path: str) -> dict[str, bytes]:
    """tokenizer.json and tokenizer_config.json, as a folder of the hub has them."""
    tokens, kinds = _vocabulary(metadata, path)
    model = metadata.get(f"{_KEY}model")
    if model == "gpt2":
        backend = _byte_level(metadata, tokens, kinds, path)
    elif model == "llama":
        backend = _sentencepiece(metadata, tokens, kinds, path)
    else:
        raise ConjureError(
            f"{path}: tokenizers of the kind '{model}' cannot be read from GGUF",
            hint="gpt2 and llama can; or use the tokenizer of the model's folder on the hub",
        )
    named = _special(metadata, tokens)
    adds = {name: name in named and _adds(metadata, name, model) for name in ("bos_token", "eos_token")}
    if any(adds.values()):
        template = [*([named["bos_token"]] * adds["bos_token"]), "$A", *([named["eos_token"]] * adds["eos_token"])]
        backend.post_processor = processors.TemplateProcessing(
            single=template, pair=[*template, *(f"{part.replace('$A', '$B')}:1" for part in template)],
            special_tokens=[(named[name], tokens.index(named[name])) for name, used in adds.items() if used],
        )  # fmt: skip
    config: dict[str, Any] = {**named, "chat_template": _templates(metadata)}
    config |= {f"add_{name}": used for name, used in adds.items()}
    if config["chat_template"] is None:
        del config["chat_template"]
    return {
        "tokenizer.json": backend.to_str(pretty=False).encode(),
        "tokenizer_config.json": json.dumps(config, ensure_ascii=False).encode(),
    }


def _vocabulary(metadata: Mapping[str, Any], path: str) -> tuple[list[str], list[int]]:
    tokens = metadata.get(f"{_KEY}tokens")
    if not isinstance(tokens, list) or not tokens or not all(isinstance(each, str) for each in tokens):
        raise ConjureError(
            f"{path}: expected a vocabulary, there is none", hint="use the tokenizer of the model's folder"
        )
    kinds = [int(each) for each in metadata.get(f"{_KEY}token_type", [])] or [1] * len(tokens)
    if len(kinds) != len(tokens):
        raise ConjureError(f"{path}: {len(tokens)} tokens have {len(kinds)} types", hint="the file is damaged")
    return tokens, kinds


def _special(metadata: Mapping[str, Any], tokens: Sequence[str]) -> dict[str, str]:
    """The tokens with a role, by the names of tokenizer_config.json."""
    roles = {
        "bos_token": "bos",
        "eos_token": "eos",
        "unk_token": "unknown",
        "pad_token": "padding",
        "mask_token": "mask",
    }
    found = {name: metadata.get(f"{_KEY}{role}_token_id") for name, role in roles.items()}
    return {name: tokens[i] for name, i in found.items() if isinstance(i, int) and 0 <= i < len(tokens)}


def _adds(metadata: Mapping[str, Any], name: str, model: object) -> bool:
    """Whether encoding adds BOS or EOS; files that do not say so mean what llama.cpp takes them to mean."""
    usual = name == "bos_token" and (model == "llama" or metadata.get(f"{_KEY}pre") in WHOLE)
    return bool(metadata.get(f"{_KEY}add_{name}", usual))


def _templates(metadata: Mapping[str, Any]) -> str | list[dict[str, str]] | None:
    """The chat template, or all of them by name where the file has several."""
    template = metadata.get("tokenizer.chat_template")
    others = {
        name: metadata.get(f"tokenizer.chat_template.{name}") for name in metadata.get("tokenizer.chat_templates", [])
    }
    if not others or not isinstance(template, str):
        return template if isinstance(template, str) else None
    listed = {"default": template} | {name: text for name, text in others.items() if isinstance(text, str)}
    return [{"name": name, "template": text} for name, text in listed.items()]


def _byte_level(metadata: Mapping[str, Any], tokens: list[str], kinds: list[int], path: str) -> Backend:
    name = metadata.get(f"{_KEY}pre", "default")
    if name not in WORDS:
        raise ConjureError(
            f"{path}: no way to cut text into words is known by the name '{name}'",
            hint=f"{suggest(str(name), WORDS)}; or use the tokenizer of the model's folder on the hub",
        )
    ids = {text: i for i, text in enumerate(tokens)}
    merges = [tuple(line.split(" ", 1)) for line in metadata.get(f"{_KEY}merges", [])]
    if any(len(pair) != 2 or not {*pair, "".join(pair)} <= ids.keys() for pair in merges):
        raise ConjureError(f"{path}: the merges of the tokenizer do not fit its vocabulary", hint="the file is damaged")
    backend = Backend(models.BPE(ids, merges, ignore_merges=name in WHOLE))  # type: ignore[arg-type]
    if WORDS[name] == (_QWEN2,):
        backend.normalizer = normalizers.NFC()
    cuts: list[Any] = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in WORDS[name]]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    _add(backend, tokens, kinds)
    return backend


def _add(backend: Backend, tokens: list[str], kinds: list[int]) -> None:
    """Control tokens become special; what users defined is found whole in any text."""
    special = [text for text, kind in zip(tokens, kinds, strict=True) if kind in (CONTROL, UNKNOWN)]
    own = [text for text, kind in zip(tokens, kinds, strict=True) if kind == USER_DEFINED]
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in own])


def _sentencepiece(metadata: Mapping[str, Any], tokens: list[str], kinds: list[int], path: str) -> Backend:
    scores = [float(each) for each in metadata.get(f"{_KEY}scores", [])]
    if len(scores) != len(tokens):
        raise ConjureError(f"{path}: {len(tokens)} tokens have {len(scores)} scores", hint="the file is damaged")
    unknown = metadata.get(f"{_KEY}unknown_token_id", 0)
    if not isinstance(unknown, int) or not 0 <= unknown < len(tokens):
        raise ConjureError(f"{path}: no token has the number {unknown!r}", hint="the file is damaged")
    prefix = bool(metadata.get(f"{_KEY}add_space_prefix", True))
    pieces = tuple(
        # The converter writes spaces into Gemma's pieces of several spaces.
        sentencepiece.Piece(text.replace(" ", "▁") if kind == USER_DEFINED and not prefix else text, score, kind)
        for text, score, kind in zip(tokens, scores, kinds, strict=True)
    )
    charsmap = metadata.get(f"{_KEY}precompiled_charsmap")
    return sentencepiece.backend(sentencepiece.SentencePiece(
        pieces=pieces, algorithm=sentencepiece.BPE, unknown=unknown, byte_fallback=BYTE in kinds,
        charsmap=b"" if charsmap is None else bytes(charsmap), dummy_prefix=prefix,
        collapse=bool(metadata.get(f"{_KEY}remove_extra_whitespaces", False)),
    ))  # fmt: skip
