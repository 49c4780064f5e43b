"""Text to token ids and back, through the `tokenizers` library, for every kind of public tokenizer and our own."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Encoding, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from conjure.codecs import chat_template, tokenizer_files
from conjure.codecs.chat_template import BREAK, ChatTemplate
from conjure.codecs.sentencepiece import SPACE, Charsmap, guard
from conjure.codecs.tokenizer_files import CONFIG, LANGUAGE, ROLES, Parts, Segmenter
from conjure.core.errors import ConjureError, suggest
from conjure.core.files import write_atomic
from conjure.core.provenance import digest

END = "<|end|>"
"""The border between documents: before the first token of each, and after its last."""
UNKNOWN = "<|unknown|>"
FILE = "tokenizer.json"

# Words with the space before them, numbers of up to three digits, punctuation, line ends apart from other space.
WORDS = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Tokenizer:
    """`encode(text) -> ids`, `decode(ids) -> text`; `tokenizer.json` is the format of the Hugging Face hub.

    Text never encodes to special tokens, whatever it says, unless that is asked for: a document cannot forge its own
    end. `bos`, `eos`, `pad`, `unk`, `mask`, `cls` and `sep` are the ids with these roles, or None.
    """

    bos: int | None
    eos: int | None
    pad: int | None
    unk: int | None
    mask: int | None
    cls: int | None
    sep: int | None

    def __init__(self, backend: Backend, *, parts: Parts | None = None, template: ChatTemplate | None = None) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self.backend = backend
        self.parts = parts or Parts(backend=backend, roles=_own_roles(backend))
        self.template = template
        """How a chat becomes text, or None where the model has no way to."""
        self.end: int | None = backend.token_to_id(END)
        """Id of `<|end|>`, or None where the vocabulary has none."""
        for role in ROLES:
            token = self.parts.roles.get(role)
            setattr(self, role, None if token is None else backend.token_to_id(token))
        added = backend.get_added_tokens_decoder()
        roles = {backend.token_to_id(token) for token in self.parts.roles.values()}
        special = {index for index, token in added.items() if token.special}
        self.specials = frozenset(special | {index for index in roles if index is not None})
        """Ids that are no text; what is unknown is among them."""
        tokens = sorted(added[i].content for i in self.specials if i in added)
        self.languages = {m[1] or m[0]: token for token in tokens if (m := LANGUAGE.fullmatch(token))}
        """Codes of the languages that texts can be said to be in, with the token of each."""
        self._special_text = re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or r"(?!)")
        self._lock = threading.Lock()  # what text may say is a setting of the backend, not of a call

    @cached_property
    def size(self) -> int:
        """Ids are below this."""
        return 1 + max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1)

    # -- text to ids

    def encode(self, text: str, special: bool = False, special_in_text: bool = False, language: str = "") -> list[int]:
        """Ids of a text. `special` adds what the model wants around it (a beginning, `[CLS]` and `[SEP]`, an end);
        `special_in_text` reads special tokens in the text as such, for text that we wrote ourselves. `language` is a
        code among `languages`, for models that must be told which one a text is in."""
        if special and self.parts.language:
            return self._in_language(self.encode(text, special_in_text=special_in_text), language)
        ids = self._encoding(text, None, special, special_in_text).ids
        doubled = special and special_in_text and self.bos is not None and ids[:2] == [self.bos, self.bos]
        return ids[1:] if doubled else ids

    def encode_batch(self, texts: Sequence[str], special: bool = False) -> list[list[int]]:
        """As `encode` of each, on all cores."""
        parts = self.parts
        if parts.source is not None or parts.prepare is not None or (special and parts.language):
            return [self.encode(text, special) for text in texts]
        with self._lock:
            self.backend.encode_special_tokens = True
            return [found.ids for found in self.backend.encode_batch_fast(list(texts), add_special_tokens=special)]

    def encode_pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        """Ids of two texts with what the model wants around and between them, and which text (0, 1) each is of."""
        found = self._encoding(first, second, True, False)
        return found.ids, found.type_ids

    def encode_target(self, text: str, language: str = "") -> list[int]:
        """Ids of a translation, as labels: cut by the tokenizer of the target language where it has its own, with what
        stands around it."""
        parts = self.parts
        if parts.target is None:
            return self.encode(text, special=True, language=language)
        pieces = self._pieces(text, False, parts.target)
        ids = (parts.target_ids or self.backend).encode(pieces, is_pretokenized=True, add_special_tokens=False).ids
        return ids if self.eos is None else [*ids, self.eos]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """(start, end) in characters of the text for each id of `encode(text)`."""
        if self.parts.source is not None:
            return self.parts.source.offsets(text)
        prepare = self.parts.prepare
        if prepare is None:
            return self._encoding(text, None, False, False).offsets
        if not isinstance(prepare, Charsmap):
            raise ConjureError("this tokenizer rewrites its text and cannot tell where in it a token was")
        text, places = prepare.aligned(text)
        with self._lock:
            self.backend.encode_special_tokens = True
            found = self.backend.encode(text, add_special_tokens=False).offsets
        return [(places[start], places[end]) for start, end in found]

    def _encoding(self, text: str, pair: str | None, special: bool, in_text: bool) -> Encoding:
        parts = self.parts
        if parts.prepare is not None:
            text, pair = parts.prepare(text), None if pair is None else parts.prepare(pair)
        if parts.source is not None:
            pieces = self._pieces(text, in_text, parts.source)
            second = None if pair is None else self._pieces(pair, in_text, parts.source)
            return self.backend.encode(pieces, second, is_pretokenized=True, add_special_tokens=special)
        with self._lock:
            self.backend.encode_special_tokens = not in_text
            return self.backend.encode(text, pair, add_special_tokens=special)

    def _pieces(self, text: str, in_text: bool, segmenter: Segmenter) -> list[str]:
        """What the first of two steps cuts a text into. Marian's texts may begin with the language to write in,
        `>>fra<<`, which is one piece."""
        pieces: list[str] = []
        if text.startswith(">>") and (end := text.find("<<")) > 0 and self.parts.target is not None:
            pieces, text = [text[: end + 2]], text[end + 2 :]
        for part in re.split(f"({self._special_text.pattern})", text) if in_text else [text]:
            if in_text and self._special_text.fullmatch(part):
                pieces.append(part)
            else:
                pieces += segmenter.pieces(part)
        return pieces

    def _in_language(self, ids: list[int], language: str) -> list[int]:
        if language and language not in self.languages and language not in self.languages.values():
            raise ConjureError(f"the tokenizer has no language '{language}'", hint=suggest(language, self.languages))
        mark = self.id(self.languages.get(language, language) or self.parts.language)
        end = [] if self.eos is None else [self.eos]
        around = [] if mark is None else [mark]
        return [*ids, *end, *around] if self.parts.language_last else [*around, *ids, *end]

    # -- ids to text

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of these ids; bytes that are no UTF-8 become U+FFFD. Special tokens are left out unless they are asked
        for. Ids of CTC characters are collapsed: repeats are one, blanks are nothing."""
        ids = list(ids)
        if self.parts.blank:
            ids = [index for index, _ in groupby(ids) if index != self.pad]
            kept = [i for i in ids if not (skip_special and i in self.specials)]
            text = self.backend.decode(kept, skip_special_tokens=False).replace(self.parts.gap, " ").strip()
            return text.lower() if self.parts.config.get("do_lower_case") else text
        return (self.parts.target_ids or self.backend).decode(ids, skip_special_tokens=skip_special)

    def token(self, index: int) -> str:
        """The piece with this id as text, special tokens by name."""
        special = self.backend.get_added_tokens_decoder().get(index)
        if special is not None:
            return special.content
        piece = self.backend.id_to_token(index) or ""
        return piece.replace(SPACE, " ") if SPACE in piece else self.backend.decode([index], skip_special_tokens=False)

    def id(self, token: str) -> int | None:
        """The id of a piece as the vocabulary writes it, or None."""
        return self.backend.token_to_id(token)

    # -- chats

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **extra: Any,
    ) -> list[int]:
        """Ids of a chat as the model's template writes it, which is also what begins it: no second beginning is added.
        What reads like a special token inside a message stays text."""
        said = (self._harmless(messages), self._harmless(tools), self._harmless(documents))
        text = self._needed_template().render(*said, add_generation_prompt, **extra)
        return [index for part in text.split(BREAK) for index in self.encode(part, special_in_text=True) if part]

    def chat_with_mask(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None, **extra: Any
    ) -> tuple[list[int], list[bool]]:
        """Ids of a whole chat, and for each whether the model wrote it: what the template has in `{% generation %}`."""
        text, spans = self._needed_template().spans(self._harmless(messages), self._harmless(tools), **extra)
        if not spans:
            raise ConjureError("the chat template has no {% generation %}, which marks what the model writes")
        ids, mask, at = [], [], 0
        for part in text.split(BREAK):
            found = self._encoding(part, None, False, True)
            ids += found.ids
            mask += [any(a < end + at and start + at < b for a, b in spans) for start, end in found.offsets]
            at += len(part) + 1
        return ids, mask

    def _needed_template(self) -> ChatTemplate:
        if self.template is None:
            raise ConjureError(
                "expected a model with a chat template, this one has none: it was not trained to hold chats",
                hint="continue plain text with it (--task complete), or take a model for chats",
            )
        return self.template

    def _harmless(self, value: Any) -> Any:
        """A copy in which no text says a special token: a mark that is never text stands inside each."""
        if isinstance(value, str):
            return self._special_text.sub(lambda found: found[0][0] + BREAK + found[0][1:], value.replace(BREAK, ""))
        if isinstance(value, Mapping):
            return {key: self._harmless(each) for key, each in value.items()}
        return [self._harmless(each) for each in value] if isinstance(value, (list, tuple)) else value

    # -- files

    def to_bytes(self) -> bytes:
        """The content of `tokenizer.json`."""
        return self.backend.to_str(pretty=False).encode()

    def digest(self) -> str:
        """`sha256:<hex>`; equal digests encode alike."""
        own = b"".join(name.encode() + b"\0" + data for name, data in sorted(self.parts.files.items()))
        return digest(self.to_bytes() + own)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` into a model folder, which transformers opens too. A
        tokenizer that needs more than the former can hold is written in the form it came in."""
        if not self.parts.files:
            write_atomic(folder / FILE, self.to_bytes())
        for name, data in self.parts.files.items():
            write_atomic(folder / name, data)
        text = json.dumps(self._config(), indent=1, ensure_ascii=False) + "\n"
        write_atomic(folder / CONFIG, text.encode())

    def _config(self) -> dict[str, Any]:
        config = {"clean_up_tokenization_spaces": False, "model_max_length": 10**9, **self.parts.config}
        config = {key: value for key, value in config.items() if key not in ("auto_map", "chat_template")}
        config = {f"{role}_token": token for role, token in self.parts.roles.items()} | config
        if not self.parts.files:
            config["tokenizer_class"] = "PreTrainedTokenizerFast"
        if self.template is not None:
            named = [{"name": name, "template": text} for name, text in self.template.templates.items()]
            only = list(self.template.templates) == ["default"]
            config["chat_template"] = self.template.templates["default"] if only else named
        return config

    @classmethod
    def load(cls, folder: Path, language: str = "") -> Tokenizer:
        """The tokenizer of a model folder in whatever form it has (`tokenizer_files.py`), with its chat template;
        `ConjureError` if it is missing or broken. `language` is the one that texts are in, where there are several."""
        folder = Path(folder)
        parts = tokenizer_files.read(folder, language)
        parts.roles = _own_roles(parts.backend) | parts.roles
        templates = chat_template.find(folder, parts.config)
        names = {f"{role}_token": token for role, token in parts.roles.items()}
        return cls(parts.backend, parts=parts, template=ChatTemplate(templates, names) if templates else None)

    @classmethod
    def from_bytes(cls, data: bytes, name: str = FILE) -> Tokenizer:
        """The tokenizer in the content of a tokenizer.json."""
        return cls(tokenizer_files.parse(data, name))


def _own_roles(backend: Backend) -> dict[str, str]:
    """The roles in vocabularies that were trained here."""
    own = {"bos": END, "eos": END, "unk": UNKNOWN}
    return {role: token for role, token in own.items() if backend.token_to_id(token) is not None}


def train_bpe(texts: Iterable[str], size: int) -> Tokenizer:
    """Byte-level BPE of `size` tokens, of which `<|end|>` is 0 (Sennrich et al. 2016, arXiv 1508.07909).

    Any text can be encoded. `size` must be above 257: the bytes and `<|end|>`.
    """
    if size < 258:
        raise ConjureError(f"expected a vocabulary of at least 258 (256 bytes, {END}, one merge), got {size}")
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    _full(backend, size)
    return Tokenizer(backend)


def train_wordpiece(texts: Iterable[str], size: int) -> Tokenizer:
    """WordPiece of `size` tokens, after `<|end|>` (0) and `<|unknown|>` (1) (Schuster and Nakajima 2012; Wu et al.
    2016, arXiv 1609.08144). Case, accents and spaces are kept: words have the space before them, as in `train_bpe`.

    Text made of the characters it was trained on is given back; a word with any other is one `<|unknown|>`.
    """
    # '#' alone, so that no word begins like a continuation; writing without spaces character by character, since a
    # word of more than a hundred characters would be unknown.
    words = r"#|[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]|" + (
        r" ?\p{L}{1,80}|\p{N}{1,3}| ?[^\s\p{L}\p{N}#]{1,80}|[\r\n]{1,80}|\s{1,80}?(?= ?\S|\z)|\s{1,80}"
    )
    backend = Backend(models.WordPiece(unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(words), behavior="isolated")
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=[END, UNKNOWN], show_progress=False)
    backend.train_from_iterator(texts, trainer)
    ranked = sorted(backend.get_vocab().items(), key=lambda pair: pair[1])
    learnt = [token for token, _ in ranked[2:]]
    # Every character, at the beginning of a word and inside one, even where the texts have it in one place only.
    alone = sorted({token.removeprefix("##") if len(token) == 3 else token for token in learnt if _is_letter(token)})
    needed = [*alone, *(f"##{token}" for token in alone if token != "#")]
    kept = [token for token in learnt if token not in set(needed)][: max(0, size - 2 - len(needed))]
    tokens = [END, UNKNOWN, *needed, *kept]
    if len(tokens) > size:
        raise ConjureError(f"these texts have {len(alone)} characters: expected a size of {len(tokens)}, got {size}")
    backend.model = models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token=UNKNOWN)
    backend.decoder = decoders.Sequence([decoders.Replace(Regex(r"\A##(?=[\s\S])"), ""), decoders.Fuse()])
    _full(backend, size)
    return Tokenizer(backend)


def _is_letter(token: str) -> bool:
    return len(token) == 1 or (len(token) == 3 and token.startswith("##"))


def train_unigram(texts: Iterable[str], size: int) -> Tokenizer:
    """Unigram language model of `size` tokens, after `<|end|>` (0), `<|unknown|>` (1) and the 256 bytes, into which
    characters fall that it never saw (Kudo 2018, arXiv 1804.10959; byte fallback as in SentencePiece).

    Any text can be encoded and is given back.
    """
    if size < 259:
        raise ConjureError(f"expected a vocabulary of at least 259 (256 bytes, {END}, {UNKNOWN}, one), got {size}")
    backend = Backend(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    backend.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=size, unk_token=UNKNOWN, special_tokens=[
        UNKNOWN], show_progress=False))  # fmt: skip
    learnt = json.loads(backend.to_str())["model"]["vocab"]
    octets = [f"<0x{byte:02X}>" for byte in range(256)]
    taken = {END, UNKNOWN, *octets}
    # Scores in steps of 1/4096 nat: the library reads such numbers back from JSON to the last bit.
    scored = ((text, round(score * 4096) / 4096) for text, score in learnt if text not in taken)
    pieces = sorted(scored, key=lambda pair: (-pair[1], pair[0]))
    first = [(END, 0.0), (UNKNOWN, 0.0), *((octet, 0.0) for octet in octets)]
    made = Backend(models.Unigram([*first, *pieces][:size], 1, byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens([AddedToken(END, special=True), AddedToken(UNKNOWN, special=True)])
    guard(made, [END, UNKNOWN])
    _full(made, size)
    return Tokenizer(made)


def train_characters(text: str) -> Tokenizer:
    """One token for each character that occurs, in order of code points, after `<|end|>` (0) and `<|unknown|>` (1)."""
    symbols = [END, UNKNOWN, *sorted(set(text))]
    backend = Backend(models.WordLevel({symbol: i for i, symbol in enumerate(symbols)}, unk_token=UNKNOWN))
    backend.add_special_tokens([AddedToken(END, special=True), AddedToken(UNKNOWN, special=True)])
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return Tokenizer(backend)


def _full(backend: Backend, size: int) -> None:
    if backend.get_vocab_size() < size:
        raise ConjureError(
            f"these texts give {backend.get_vocab_size()} tokens at most, {size} were asked for", hint="use more text"
        )
