"""The tokenizer files of public models, in every form they come in, as one `Parts`.

| form | files | families |
|---|---|---|
| whole | `tokenizer.json` | most |
| byte-level BPE | `vocab.json`, `merges.txt` | GPT-2, OPT, RoBERTa, BART, Whisper, Qwen; CLIP with its `</w>` |
| WordPiece | `vocab.txt` | BERT, DistilBERT, MiniLM, MPNet |
| SentencePiece | `*.model` | Llama, Gemma, T5, mT5, XLM-R, mBART, NLLB, DeBERTa v2, SigLIP |
| two steps | `source.spm`, `target.spm`, `vocab.json` | Marian |
| two steps | `sentencepiece.bpe.model`, `vocab.json` | M2M100 |
| characters | `vocab.json` | wav2vec2, XLSR, MMS |

Beside them `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and `config.json` say which tokens
begin, end, pad, and which class of tokenizer it was, on which defaults depend.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from conjure.codecs import sentencepiece
from conjure.codecs.languages import M2M100, MBART, MBART50
from conjure.core.errors import ConjureError, suggest

WHOLE, CONFIG = "tokenizer.json", "tokenizer_config.json"
ROLES = "bos eos pad unk mask cls sep".split()
LANGUAGE = re.compile(r"__([a-z]{2,3})__|[a-z]{3}_[A-Z][a-z]{3}|[a-z]{2}_[A-Z]{2}")
"""Special tokens that name a language: of M2M100, NLLB, mBART."""
MODELS = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "spm.model", "sentencepiece.model",
          "spm_char.model")  # fmt: skip
LOOKED_FOR = (
    "tokenizer.json; vocab.json with merges.txt; vocab.txt; spiece.model, sentencepiece.bpe.model, tokenizer.model or "
    "spm.model; source.spm, target.spm and vocab.json; vocab.json alone"
)
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CLIP_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)

# Which class of tokenizer a model has where tokenizer_config.json does not say.
CLASSES = {
    "t5": "T5", "mt5": "T5", "umt5": "T5", "xlm-roberta": "XLMRoberta", "xlm-roberta-xl": "XLMRoberta",
    "mbart": "MBart", "llama": "Llama", "mistral": "Llama", "mixtral": "Llama", "gemma": "Gemma", "gemma2": "Gemma",
    "gemma3": "Gemma", "gemma3_text": "Gemma", "deberta-v2": "DebertaV2", "siglip": "Siglip", "m2m_100": "M2M100",
    "roberta": "Roberta", "bart": "Bart", "clip": "CLIP", "whisper": "Whisper", "opt": "GPT2", "qwen2": "Qwen2",
    "qwen3": "Qwen2", "gpt_neox": "GPTNeoX", "mpnet": "MPNet", "bert": "Bert", "distilbert": "DistilBert",
    "wav2vec2": "Wav2Vec2CTC", "hubert": "Wav2Vec2CTC", "marian": "Marian", "deberta": "Deberta",
    "speecht5": "SpeechT5",
}  # fmt: skip
_GPT2 = {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "unk": "<|endoftext|>"}
_ANGLES = {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>"}
_ROBERTA = _ANGLES | {"mask": "<mask>", "cls": "<s>", "sep": "</s>"}
_BERT = {"pad": "[PAD]", "unk": "[UNK]", "mask": "[MASK]", "cls": "[CLS]", "sep": "[SEP]"}
_T5 = {"eos": "</s>", "pad": "<pad>", "unk": "<unk>"}
DEFAULTS: dict[str, dict[str, str]] = {
    "GPT2": _GPT2, "CodeGen": _GPT2, "Whisper": _GPT2 | {"pad": "<|endoftext|>"},
    "Qwen2": {"eos": "<|endoftext|>", "pad": "<|endoftext|>", "unk": "<|endoftext|>"},
    "GPTNeoX": _GPT2 | {"pad": "<|padding|>"},
    "CLIP": {"bos": "<|startoftext|>", "eos": "<|endoftext|>", "pad": "<|endoftext|>", "unk": "<|endoftext|>"},
    "Roberta": _ROBERTA, "Bart": _ROBERTA, "Longformer": _ROBERTA, "LED": _ROBERTA, "XLMRoberta": _ROBERTA,
    "Bert": _BERT, "DistilBert": _BERT, "Electra": _BERT, "Deberta": _BERT | {"bos": "[CLS]", "eos": "[SEP]"},
    "MPNet": _ROBERTA | {"unk": "[UNK]"}, "DebertaV2": _BERT | {"bos": "[CLS]", "eos": "[SEP]"},
    "MBart": _ROBERTA, "MBart50": _ROBERTA, "Nllb": _ROBERTA, "M2M100": _ANGLES, "T5": _T5, "Marian": _T5,
    "Siglip": {"eos": "</s>", "pad": "</s>", "unk": "<unk>"}, "Wav2Vec2CTC": _ANGLES,
    "SpeechT5": _ANGLES,
    "Llama": {"bos": "<s>", "eos": "</s>", "unk": "<unk>"},
    "Gemma": {"bos": "<bos>", "eos": "<eos>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"},
}  # fmt: skip


class Segmenter:
    """Text to the pieces of a SentencePiece model."""

    def __init__(self, path: Path) -> None:
        model = sentencepiece.read(path.read_bytes(), str(path))
        self.charsmap = sentencepiece.Charsmap(model) if model.charsmap else None
        self.backend = sentencepiece.backend(model)
        self.backend.encode_special_tokens = True

    def pieces(self, text: str) -> list[str]:
        text = self.charsmap(text) if self.charsmap else text
        return self.backend.encode(text, add_special_tokens=False).tokens

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """(start, end) of each piece in the text."""
        text, places = self.charsmap.aligned(text) if self.charsmap else (text, list(range(len(text) + 1)))
        found = self.backend.encode(text, add_special_tokens=False).offsets
        return [(places[start], places[end]) for start, end in found]


@dataclass(kw_only=True)
class Parts:
    """What a tokenizer is made of."""

    backend: Backend
    """Text to ids and back; where `source` is set, pieces to ids."""
    roles: dict[str, str] = field(default_factory=dict)
    """"bos", "eos", ... to the token that has the role."""
    config: dict[str, Any] = field(default_factory=dict)
    """tokenizer_config.json."""
    prepare: Callable[[str], str] | None = None
    """Done to text before anything else, where the library has no normaliser for it."""
    source: Segmenter | None = None
    """Cuts text into the pieces that `backend` looks up."""
    target: Segmenter | None = None
    """The same for the language translated into."""
    target_ids: Backend | None = None
    """Looks up the pieces of the target, where it has a vocabulary of its own."""
    blank: str = ""
    """The CTC blank; ids are then collapsed as they are decoded."""
    gap: str = "|"
    """What stands for a space among CTC characters."""
    files: dict[str, bytes] = field(default_factory=dict)
    """The files as they were, where tokenizer.json could not hold all of this."""
    language: str = ""
    """The token of the language that text is in, if none is given."""
    language_last: bool = False
    """That token stands behind the end and not in front."""


def read(folder: Path, language: str = "") -> Parts:
    """The tokenizer in a model folder; `ConjureError` says what was looked for where there is none.

    `language` is the one that text is in, for models of many languages.
    """
    config = _json(folder / CONFIG) | _special_map(folder)
    model = _json(folder / "config.json")
    kind = _kind(config, model)
    has = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    spm = next((name for name in MODELS if name in has), "")
    if WHOLE in has and not (kind == "Siglip" and spm):
        parts = Parts(backend=parse((folder / WHOLE).read_bytes(), str(folder / WHOLE)), config=config)
    elif {"source.spm", "target.spm", "vocab.json"} <= has:
        kind, parts = "Marian", _marian(folder, config)
    elif spm and "vocab.json" in has and "merges.txt" not in has:
        kind, parts = "M2M100", _m2m100(folder, spm, config)
    elif {"vocab.json", "merges.txt"} <= has:
        kind, parts = _byte_level(folder, kind, config)
    elif "vocab.txt" in has:
        parts = Parts(backend=_word_piece(folder / "vocab.txt", config), config=config)
        kind = kind if kind in DEFAULTS else "Bert"
    elif spm:
        kind, parts = _sentence_piece(folder / spm, kind, config)
    elif "vocab.json" in has:
        kind, parts = "Wav2Vec2CTC", _characters(folder, config, language)
    else:
        raise ConjureError(
            f"expected tokenizer files in {folder}, there are none: looked for {LOOKED_FOR}",
            hint="fetch or save the model again",
        )
    _tokens(parts, folder, kind, model)
    if not (WHOLE in has and parts.source is None and not parts.prepare):
        _template(parts, kind)
    elif kind in ("Llama", "Gemma") and config.get("add_bos_token") is True:
        _begin(parts)
    _languages(parts, kind, language)
    return parts


# -- the forms --------------------------------------------------------------------------------------------


def parse(data: bytes, name: str) -> Backend:
    """The content of a tokenizer.json."""
    try:
        backend = Backend.from_buffer(data)
    except ValueError as error:
        raise ConjureError(f"{name}: no valid tokenizer: {error}", hint="fetch or save the model again") from None
    model = backend.model
    if isinstance(model, models.BPE) and model.end_of_word_suffix == "</w>":
        backend.decoder = _clip_decoder()
    if isinstance(model, models.Unigram) or (isinstance(model, models.BPE) and model.byte_fallback):
        added = backend.get_added_tokens_decoder().values()
        sentencepiece.guard(backend, [token.content for token in added if token.special])
    return backend


def _byte_level(folder: Path, kind: str, config: dict[str, Any]) -> tuple[str, Parts]:
    vocabulary = _vocabulary(folder / "vocab.json")
    lines = _text(folder / "merges.txt").split("\n")
    pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    merges = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
    if len(merges) != len(pairs):
        raise ConjureError(f"{folder / 'merges.txt'}: expected two pieces on every line", hint="fetch it again")
    clip = kind == "CLIP" or any(right.endswith("</w>") for _, right in merges[:100])
    strange = [left for left, right in merges if not {left, right, left + right} <= vocabulary.keys()]
    if strange:
        raise ConjureError(
            f"{folder / 'merges.txt'} does not fit vocab.json: {len(strange)} merges of unknown pieces, "
            f"the first begins with {strange[0]!r}", hint="fetch both again",
        )  # fmt: skip
    if clip:
        model = models.BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token="<|endoftext|>")
    else:
        model = models.BPE(vocabulary, merges)
    backend = Backend(model)
    prefix = bool(config.get("add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()
    if clip:
        kind, backend.decoder = "CLIP", _clip_decoder()
        backend.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True),
             pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )  # fmt: skip
    elif kind == "Qwen2":
        backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(QWEN), behavior="isolated"),
             pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)]
        )  # fmt: skip
    elif kind == "GPTNeoX":
        backend.normalizer = normalizers.NFC()
    return kind if kind in DEFAULTS else "GPT2", Parts(backend=backend, config=config)


def _clip_decoder() -> decoders.Decoder:
    """The mark of a word's end is a space, which byte-level pieces write as Ġ."""
    return decoders.Sequence([decoders.Replace("</w>", "Ġ"), decoders.ByteLevel(), decoders.Replace(Regex(r" \z"), "")])


def _word_piece(path: Path, config: Mapping[str, Any]) -> Backend:
    words = _text(path).split("\n")
    vocabulary = {word.rstrip("\r"): i for i, word in enumerate(words[:-1] if words[-1] == "" else words)}
    unknown = _content(config.get("unk_token")) or "[UNK]"
    if unknown not in vocabulary:
        raise ConjureError(f"{path} has no token '{unknown}' for unknown words", hint="fetch it again")
    backend = Backend(models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=100))
    accents = config.get("strip_accents")
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
        strip_accents=accents if isinstance(accents, bool) else None,
        lowercase=bool(config.get("do_lower_case", True)),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def _sentence_piece(path: Path, kind: str, config: dict[str, Any]) -> tuple[str, Parts]:
    model = sentencepiece.read(path.read_bytes(), str(path))
    known = {piece.text for piece in model.pieces}
    if kind not in DEFAULTS:
        guesses = {"spiece.model": "T5", "sentencepiece.bpe.model": "XLMRoberta", "spm.model": "DebertaV2",
                   "spm_char.model": "SpeechT5"}  # fmt: skip
        kind = guesses.get(path.name, "Gemma" if "<bos>" in known else "Llama")
    if kind in ("XLMRoberta", "MBart", "MBart50", "Nllb", "M2M100"):
        kind = "Nllb" if kind == "M2M100" else kind
        lists = {"MBart": MBART, "MBart50": MBART50, "XLMRoberta": ()}
        codes = lists.get(kind) or [text for text in _additional(config) if LANGUAGE.fullmatch(text)]
        model = sentencepiece.fairseq(model, [*codes, "<mask>"] if kind != "XLMRoberta" else ["<mask>"])
    pieces = list(model.pieces)
    for index, token in _listed(config):  # the config may give a spare piece a name of its own
        if index < len(pieces) and token.content not in known:
            kept = sentencepiece.CONTROL if token.special else sentencepiece.USER_DEFINED
            pieces[index] = sentencepiece.Piece(token.content, pieces[index].score, kept)
    extra = config.get("extra_ids", 100) if kind == "T5" else 0
    if kind == "T5" and not any("<extra_id_0>" in text for text in known):
        pieces += [_control(f"<extra_id_{i}>") for i in reversed(range(int(extra)))]
    if kind == "DebertaV2" and "[MASK]" not in known:
        pieces.append(_control("[MASK]"))
    model = replace(model, pieces=tuple(pieces))
    files = {path.name: path.read_bytes()} if model.charsmap or kind == "Siglip" else {}
    lower = bool(config.get("do_lower_case", kind == "Siglip"))
    charsmap = sentencepiece.Charsmap(model, lower and kind == "DebertaV2") if model.charsmap else None
    prepare: Callable[[str], str] | None = charsmap
    if kind == "Siglip":
        model = replace(model, dummy_prefix=True)
        prepare = partial(canonical, lower=lower, charsmap=charsmap)
    return kind, Parts(backend=sentencepiece.backend(model), config=config, files=files, prepare=prepare)


def _control(text: str) -> sentencepiece.Piece:
    return sentencepiece.Piece(text, 0.0, sentencepiece.CONTROL)


def canonical(text: str, lower: bool = True, charsmap: sentencepiece.Charsmap | None = None) -> str:
    """What SigLIP reads of a text: no punctuation, single spaces (big_vision's `canonicalize_text`)."""
    text = (text.lower() if lower else text).translate(str.maketrans("", "", string.punctuation))
    words = re.sub(r"\s+", " ", text.replace(sentencepiece.SPACE, " ")).strip()
    return charsmap(words) if charsmap else words


def _looked_up(vocabulary: dict[str, int], unknown: str) -> Backend:
    """Pieces to ids, and ids to text as SentencePiece would write it."""
    backend = Backend(models.WordLevel(vocabulary, unk_token=unknown))
    backend.decoder = decoders.Sequence(
        [decoders.Replace(sentencepiece.SPACE, " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )
    return backend


def _marian(folder: Path, config: dict[str, Any]) -> Parts:
    names = ("source.spm", "target.spm", "vocab.json", "target_vocab.json")
    unknown = _content(config.get("unk_token")) or "<unk>"
    target = folder / "target_vocab.json"
    own = _looked_up(_vocabulary(target), unknown) if config.get("separate_vocabs") and target.is_file() else None
    return Parts(
        backend=_looked_up(_vocabulary(folder / "vocab.json"), unknown), config=config, target_ids=own,
        source=Segmenter(folder / "source.spm"), target=Segmenter(folder / "target.spm"),
        files={name: (folder / name).read_bytes() for name in names if (folder / name).is_file()},
    )  # fmt: skip


def _m2m100(folder: Path, spm: str, config: dict[str, Any]) -> Parts:
    backend = _looked_up(_vocabulary(folder / "vocab.json"), _content(config.get("unk_token")) or "<unk>")
    named = [text for text in _additional(config) if LANGUAGE.fullmatch(text)]
    codes = named or [f"__{code}__" for code in M2M100]
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in codes])
    files = {name: (folder / name).read_bytes() for name in (spm, "vocab.json")}
    return Parts(backend=backend, config=config, source=Segmenter(folder / spm), files=files)


def _characters(folder: Path, config: dict[str, Any], language: str) -> Parts:
    path = folder / "vocab.json"
    content: Any = _json(path)
    if content and all(isinstance(value, dict) for value in content.values()):
        language = language or str(config.get("target_lang") or "")
        if language not in content:
            raise ConjureError(
                f"{path} has the characters of {len(content)} languages, '{language}' is not among them",
                hint=suggest(language, content) if language else "say which language with language=",
            )
        config = {**config, "target_lang": language}
        content = content[language]
    vocabulary = {str(text): int(index) for text, index in content.items()}
    unknown, blank = _content(config.get("unk_token")) or "<unk>", _content(config.get("pad_token")) or "<pad>"
    gap = _content(config.get("word_delimiter_token")) or "|"
    if unknown not in vocabulary or blank not in vocabulary:
        raise ConjureError(f"{path}: expected characters, '{unknown}' and the blank '{blank}'", hint="fetch it again")
    backend = Backend(models.WordLevel(vocabulary, unk_token=unknown))
    backend.normalizer = normalizers.Replace(" ", gap)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    roles = {"<s>", "</s>", unknown, blank, *(_content(config.get(f"{role}_token")) for role in ROLES)}
    longer = [text for text in vocabulary if len(text) > 1 and text not in roles]
    backend.add_tokens([AddedToken(text, lstrip=True, rstrip=True, normalized=False) for text in longer])
    prepare = str.upper if config.get("do_lower_case") else None
    return Parts(backend=backend, config=config, prepare=prepare, blank=blank, gap=gap,
                 files={"vocab.json": path.read_bytes()})  # fmt: skip


# -- tokens with a role -----------------------------------------------------------------------------------


def _tokens(parts: Parts, folder: Path, kind: str, model: Mapping[str, Any]) -> None:
    """Find the tokens that have a role, and make the library know all special ones."""
    config, backend = parts.config, parts.backend
    stated = {role: _content(config.get(f"{role}_token")) for role in ROLES}
    added = [token for _, token in _listed(config)]
    said = {token.content for token in added}
    others = _json(folder / "added_tokens.json")
    special = {text for text in [*stated.values(), *_additional(config)] if text}
    added += [
        AddedToken(text, special=text in special, normalized=text not in special)
        for text in sorted(others, key=lambda text: int(others[text])) if text not in said
    ]  # fmt: skip
    for role, token in DEFAULTS.get(kind, {}).items():
        if not stated.get(role) and backend.token_to_id(token) is not None:
            stated[role] = token
    for role in ("bos", "eos", "pad"):
        index = model.get(f"{role}_token_id")
        index = index[0] if isinstance(index, list) and index else index
        if not stated.get(role) and isinstance(index, int) and (token := backend.id_to_token(index)) is not None:
            stated[role] = token
    parts.roles = {role: token for role, token in stated.items() if token}
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    own = {token.content: token for token in added}
    for text in [*parts.roles.values(), *_additional(config)]:
        # A mask takes the space in front with it, as the words do that it hides.
        own.setdefault(text, AddedToken(text, special=True, normalized=False, lstrip=text == "<mask>"))
    missing = [token for text, token in own.items() if text not in known]
    backend.add_special_tokens([token for token in missing if token.special or token.content in special])
    backend.add_tokens([token for token in missing if not (token.special or token.content in special)])
    if parts.target_ids is not None:
        own_ids = parts.target_ids
        own_ids.add_special_tokens([text for text in parts.roles.values() if own_ids.token_to_id(text) is not None])


def _template(parts: Parts, kind: str) -> None:
    """What is put around a text, by the class of tokenizer."""
    roles, config = parts.roles, parts.config
    bos, eos, cls, sep = (roles.get(role, "") for role in ("bos", "eos", "cls", "sep"))
    if kind in ("Bert", "DistilBert", "Electra", "Deberta", "DebertaV2"):
        _around(parts, [cls, "$A", sep], [cls, "$A", sep, "$B:1", f"{sep}:1"])
    elif kind in ("Roberta", "Bart", "Longformer", "LED", "MPNet", "XLMRoberta"):
        first, last = cls or bos, sep or eos
        _around(parts, [first, "$A", last], [first, "$A", last, last, "$B", last])
    elif kind == "CLIP":
        _around(parts, [bos, "$A", eos], [bos, "$A", eos, eos, "$B", eos])
    elif kind in ("T5", "Siglip", "SpeechT5"):
        _around(parts, ["$A", eos], ["$A", eos, "$B", eos])
    elif kind == "Marian":
        _around(parts, ["$A", eos], ["$A", "$B", eos])
    elif kind == "Whisper":
        first = ["<|startoftranscript|>"] + ([] if config.get("predict_timestamps") else ["<|notimestamps|>"])
        first = [token for token in first if parts.backend.token_to_id(token) is not None]
        _around(parts, [*first, "$A", eos], [*first, "$A", "$B:1", f"{eos}:1"])
    else:
        begins = bool(config.get("add_bos_token", kind in ("Llama", "Gemma"))) and bool(bos)
        ends = bool(config.get("add_eos_token", False)) and bool(eos)
        one = [*([bos] if begins else []), "$A", *([eos] if ends else [])]
        two = [*([f"{bos}:1"] if begins else []), "$B:1", *([f"{eos}:1"] if ends else [])]
        if begins or ends:
            _around(parts, one, one + two)


def _begin(parts: Parts) -> None:
    """tokenizer.json leaves the beginning out, and tokenizer_config.json asks for it."""
    bos = parts.roles.get("bos", "")
    if bos and parts.backend.token_to_id(bos) not in parts.backend.encode("a").ids:
        _around(parts, [bos, "$A"], [bos, "$A", f"{bos}:1", "$B:1"])


def _around(parts: Parts, single: Sequence[str], pair: Sequence[str]) -> None:
    names = {name for each in pair if not (name := each.removesuffix(":1")).startswith("$")}
    ids = {name: parts.backend.token_to_id(name) for name in names}
    lost = sorted(name or "(none)" for name, index in ids.items() if index is None)
    if lost:
        raise ConjureError(
            f"the tokenizer is said to put {', '.join(lost)} around a text, which its vocabulary does not have",
            hint="tokenizer_config.json and the vocabulary belong to different models",
        )
    known = [(name, index) for name, index in sorted(ids.items()) if index is not None]
    parts.backend.post_processor = processors.TemplateProcessing(
        single=list(single), pair=list(pair), special_tokens=known
    )


def _languages(parts: Parts, kind: str, language: str) -> None:
    defaults = {"MBart": "en_XX", "MBart50": "en_XX", "Nllb": "eng_Latn", "M2M100": "__en__"}
    if kind not in defaults:
        return
    parts.language_last = kind == "MBart" or bool(parts.config.get("legacy_behaviour"))
    wanted = language or str(parts.config.get("src_lang") or defaults[kind])
    parts.language = wanted if parts.backend.token_to_id(wanted) is not None else f"__{wanted}__"
    if parts.backend.token_to_id(parts.language) is None:
        parts.language = ""
        if language:
            raise ConjureError(f"the tokenizer has no language '{language}'")


# -- files ------------------------------------------------------------------------------------------------


def _kind(config: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """The class of tokenizer without "Tokenizer": from tokenizer_config.json, else by the model's type."""
    named = str(config.get("tokenizer_class") or model.get("tokenizer_class") or "")
    kind = re.sub("Tokenizer(Fast)?$", "", named)
    aliases = {"MT5": "T5", "BartFast": "Bart", "Distilbert": "DistilBert", "CodeLlama": "Llama", "NllbMoe": "Nllb"}
    kind = aliases.get(kind, kind)
    return kind if kind in DEFAULTS else CLASSES.get(str(model.get("model_type")), kind)


def _special_map(folder: Path) -> dict[str, Any]:
    """special_tokens_map.json, for what tokenizer_config.json does not say."""
    own = _json(folder / CONFIG)
    return {key: value for key, value in _json(folder / "special_tokens_map.json").items() if not own.get(key)}


def _additional(config: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for key in ("additional_special_tokens", "extra_special_tokens"):
        value = config.get(key) or []
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        found += [text for each in values if (text := _content(each)) and text not in found]
    return found


def _listed(config: Mapping[str, Any]) -> list[tuple[int, AddedToken]]:
    """`added_tokens_decoder`, by id."""
    listed = config.get("added_tokens_decoder") or {}
    flags = ("lstrip", "rstrip", "normalized", "single_word", "special")
    found = [
        (int(index), AddedToken(each["content"], **{name: bool(each[name]) for name in flags if name in each}))
        for index, each in listed.items() if isinstance(each, dict) and isinstance(each.get("content"), str)
    ]  # fmt: skip
    return sorted(found, key=lambda pair: pair[0])


def _content(value: object) -> str:
    """A token in a config is a text, or a mapping with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ConjureError(f"{path} is not UTF-8: {error}", hint="fetch it again") from None


def _json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(_text(path))
    except ValueError as error:
        raise ConjureError(f"{path} is not JSON: {error}", hint="fetch it again") from None
    if not isinstance(content, dict):
        raise ConjureError(f"{path}: expected a mapping, got {type(content).__name__}", hint="fetch it again")
    return content


def _vocabulary(path: Path) -> dict[str, int]:
    content = _json(path)
    if not content or not all(isinstance(index, int) for index in content.values()):
        raise ConjureError(f"{path}: expected tokens and their ids", hint="fetch it again")
    return content
