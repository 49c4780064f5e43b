"""Text to token ids and back, through the `tokenizers` library: byte-level BPE, or one token per character."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from conjure.core.errors import ConjureError
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

    Text never encodes to special tokens, whatever it says: a document cannot forge its own end.
    """

    def __init__(self, backend: Backend) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self.backend = backend
        self.end: int | None = backend.token_to_id(END)
        """Id of `<|end|>`, or None where the vocabulary has none."""

    @property
    def size(self) -> int:
        """Ids are below this."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """As `encode` of each, on all cores."""
        return [found.ids for found in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Special tokens are left out; bytes that are no UTF-8 become U+FFFD."""
        return self.backend.decode(list(ids), skip_special_tokens=True)

    def token(self, index: int) -> str:
        """The piece with this id as text, special tokens by name."""
        special = self.backend.get_added_tokens_decoder().get(index)
        if special is not None:
            return special.content
        return self.backend.decode([index], skip_special_tokens=False)

    def to_bytes(self) -> bytes:
        """The content of `tokenizer.json`."""
        return self.backend.to_str(pretty=False).encode()

    def digest(self) -> str:
        """`sha256:<hex>`; equal digests encode alike."""
        return digest(self.to_bytes())

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` into a model folder."""
        write_atomic(folder / FILE, self.to_bytes())

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read `tokenizer.json` of a model folder; `ConjureError` if it is missing or broken."""
        path = folder / FILE
        if not path.is_file():
            raise ConjureError(f"expected {FILE} in {folder}, there is none", hint="fetch or save the model again")
        return cls.from_bytes(path.read_bytes(), str(path))

    @classmethod
    def from_bytes(cls, data: bytes, name: str = FILE) -> Tokenizer:
        try:
            backend = Backend.from_buffer(data)
        except ValueError as error:
            raise ConjureError(f"{name}: no valid tokenizer: {error}", hint="fetch or save the model again") from None
        return cls(backend)


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
    if backend.get_vocab_size() < size:
        raise ConjureError(
            f"these texts give {backend.get_vocab_size()} tokens at most, {size} were asked for", hint="use more text"
        )
    return Tokenizer(backend)


def train_characters(text: str) -> Tokenizer:
    """One token for each character that occurs, in order of code points, after `<|end|>` (0) and `<|unknown|>` (1)."""
    symbols = [END, UNKNOWN, *sorted(set(text))]
    backend = Backend(models.WordLevel({symbol: i for i, symbol in enumerate(symbols)}, unk_token=UNKNOWN))
    backend.add_special_tokens([AddedToken(END, special=True), AddedToken(UNKNOWN, special=True)])
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return Tokenizer(backend)
