"""A tokenizer for source code: a line end and the indentation after it are one piece, and gaps have marks.

Indentation is most of the white space of code; as pieces of their own "\\n        " costs one token and a word at the
beginning of a line is the same token as elsewhere behind a space-less mark.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from conjure.codecs.tokenizer import END, Tokenizer
from conjure.core.errors import ConjureError

PREFIX, SUFFIX, MIDDLE = "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"
MARKS = (END, PREFIX, SUFFIX, MIDDLE)
"""Ids 0 to 3."""

# Words with the space before them (an underscore is punctuation: names fall into their words), numbers of up to three
# digits, punctuation, line ends with the indentation behind them, other space.
CODE = r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|(?:[ \t\f]*[\r\n])+[ \t]*|\s+(?!\S)|\s+"


def train_code(texts: Iterable[str], size: int) -> Tokenizer:
    """Byte-level BPE of `size` tokens with `MARKS` in front; any text can be encoded. `size` must be above 260."""
    if size < 261:
        raise ConjureError(f"expected a vocabulary of at least 261 (256 bytes, 4 marks, one merge), got {size}")
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CODE), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(MARKS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    if backend.get_vocab_size() < size:
        raise ConjureError(
            f"these texts give {backend.get_vocab_size()} tokens at most, {size} were asked for", hint="use more text"
        )
    return Tokenizer(backend)
