"""SentencePiece files: ids equal to the sentencepiece package's, from bytes that we read ourselves."""

from __future__ import annotations

import io
from typing import Any

import pytest
import sentencepiece as peer

from conjure.codecs import sentencepiece
from conjure.codecs.sentencepiece import Charsmap
from conjure.core.errors import ConjureError

KEEP = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
KINDS: dict[str, dict[str, Any]] = {
    "unigram": {"model_type": "unigram"},
    "unigram, bytes, own pieces": {"model_type": "unigram", "byte_fallback": True,
                                   "user_defined_symbols": ["::", "abc"]},
    "bpe": {"model_type": "bpe", "normalization_rule_name": "nmt_nfkc_cf"},
    "bpe as llama's": {"model_type": "bpe", "byte_fallback": True, **KEEP},
    "bpe as gemma's": {"model_type": "bpe", "byte_fallback": True, "add_dummy_prefix": False, **KEEP,
                       "user_defined_symbols": ["\n\n", "▁▁", "▁▁▁▁"]},
}  # fmt: skip


def trained(lines: list[str], **options: Any) -> bytes:
    out = io.BytesIO()
    peer.SentencePieceTrainer.Train(
        sentence_iterator=iter(lines), model_writer=out, vocab_size=800, hard_vocab_limit=False, minloglevel=2,
        num_threads=1, character_coverage=0.98, **options,
    )  # fmt: skip
    return out.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_text_equal_the_peers(kind: str, mixed_lines: list[str]) -> None:
    data = trained(mixed_lines[2400:], **KINDS[kind])
    theirs = peer.SentencePieceProcessor(model_proto=data)
    model = sentencepiece.read(data, kind)
    ours, charsmap = sentencepiece.backend(model), Charsmap(model) if model.charsmap else str
    ours.encode_special_tokens = True
    found = [ours.encode(charsmap(line), add_special_tokens=False).ids for line in mixed_lines]
    wanted = theirs.Encode(mixed_lines)
    assert [line for line, a, b in zip(mixed_lines, found, wanted) if a != b] == []
    known = [ids for ids in wanted if theirs.unk_id() not in ids]
    assert len(known) > 500
    assert [ours.decode(ids) for ids in known] == theirs.Decode(known)


def test_places_lead_back_to_the_text(mixed_lines: list[str]) -> None:
    charsmap = Charsmap(sentencepiece.read(trained(mixed_lines[:300]), "x"))
    for text in mixed_lines:
        new, places = charsmap.aligned(text)
        assert new == charsmap(text) and len(places) == len(new) + 1
        assert places == sorted(places) and places[-1] == len(text)
    new, places = charsmap.aligned("x ｶﾞ ㈱y")
    assert (new, places) == ("x ガ (株)y", [0, 1, 2, 4, 5, 5, 5, 6, 7])


def test_text_is_never_a_special_token_or_a_byte(mixed_lines: list[str]) -> None:
    for kind in ("unigram", "bpe"):
        data = trained(mixed_lines[:300], model_type=kind, byte_fallback=True)
        ours = sentencepiece.backend(sentencepiece.read(data, "x"))
        ours.encode_special_tokens = True
        for text in ("</s>", "a <s> b", "<unk>", "<0x41>"):
            ids = ours.encode(text, add_special_tokens=False).ids
            assert not {0, 1, 2} & set(ids) and ours.decode(ids) == text


@pytest.mark.parametrize("change", ["cut", "empty", "text", "key"])
def test_a_broken_file(change: str, mixed_lines: list[str]) -> None:
    data = trained(mixed_lines[:300])
    broken = {"cut": data[: len(data) // 2], "empty": b"", "text": b"ZXN0 17\n" * 50, "key": data + b"\x07"}[change]
    with pytest.raises(ConjureError, match=r"my\.model"):
        sentencepiece.read(broken, "my.model")
