"""Time tokens against transformers' rules; times of tokens and words against its alignment."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import WhisperForConditionalGeneration as Reference
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor
from transformers.models.whisper import generation_whisper, tokenization_whisper

from conjure.decoding.rows import Past
from conjure.decoding.timestamps import (
    Phrase,
    TimeTokens,
    medians,
    phrases,
    timed,
    token_times,
    warped,
    words,
)

END, WITHOUT, FIRST, VOCAB = 20, 24, 25, 60
TOKENS = TimeTokens(first=FIRST, without=WITHOUT, end=END, latest_first=10)
SEQUENCES = st.lists(st.sampled_from([1, 2, 3, 19, 25, 26, 30, 31, 40, 59]), max_size=6)


@settings(max_examples=30, deadline=None)
@given(st.lists(SEQUENCES, min_size=1, max_size=4), st.integers(0, 1000), st.sampled_from([None, 10]))
def test_the_rules_are_those_of_the_reference(written: list[list[int]], seed: int, latest: int | None) -> None:
    shortest = min(map(len, written))
    rows = [each[:shortest] for each in written]
    logits = 3 * torch.randn(len(rows), VOCAB, generator=torch.Generator().manual_seed(seed))
    config = SimpleNamespace(no_timestamps_token_id=WITHOUT, eos_token_id=END, bos_token_id=END,
                             max_initial_timestamp_index=latest)  # fmt: skip
    processor: Any = WhisperTimeStampLogitsProcessor(config, begin_index=2)  # type: ignore[arg-type]
    ids = torch.tensor([[22, 23, *row] for row in rows])
    tokens = TimeTokens(first=FIRST, without=WITHOUT, end=END, latest_first=latest)
    found = timed(logits, [Past([22, 23, *row], 2) for row in rows], tokens)
    assert torch.equal(found, processor(ids, logits))


def test_rows_of_different_length_have_their_own_rules() -> None:
    logits = torch.randn(2, VOCAB, generator=torch.Generator().manual_seed(3))
    both = timed(logits, [Past([22], 1), Past([22, 25, 3], 1)], TOKENS)
    assert torch.equal(both[0:1], timed(logits[:1], [Past([22], 1)], TOKENS))
    assert torch.equal(both[1:], timed(logits[1:], [Past([22, 25, 3], 1)], TOKENS))
    assert both[0].argmax() >= FIRST and bool((both[1, FIRST] == -torch.inf).all())


def segments_of(ids: list[int], seconds: float) -> list[tuple[float, float, tuple[int, ...]]]:
    """As transformers cuts them, text tokens alone, empty ones left out."""
    given_ids = torch.tensor(ids)
    made, _ = Reference._retrieve_segment(
        seek_sequence=given_ids, seek_outputs=[{}], time_offset=torch.zeros(1, dtype=torch.float64),
        timestamp_begin=FIRST, seek_num_frames=torch.tensor([round(100 * seconds)]), time_precision=0.02,
        time_precision_features=0.01, input_stride=2, prev_idx=0, idx=0, return_token_timestamps=False,
        decoder_input_ids=torch.zeros(1, 2),
    )  # fmt: skip
    cut = [(float(s["start"]), float(s["end"]), tuple(t for t in s["tokens"].tolist() if t < END)) for s in made]
    return [each for each in cut if each[2]]


@pytest.mark.parametrize(
    ("ids", "heard"),
    [
        ([25, 1, 2, 30], 0.7),
        ([25, 1, 30, 30, 2, 3, 40], 0.7),
        ([25, 1, 30, 31, 2, 40, 40], 0.3),
        ([25, 1, 30, 30], 0.1),
        ([1, 2, 3], 0.7),
    ],
)
def test_phrases_are_the_segments_of_the_reference(ids: list[int], heard: float) -> None:
    found, until = phrases([*ids, END], TOKENS, 0.7)
    wanted = segments_of(ids, 0.7)
    assert [each.ids for each in found] == [part for _, _, part in wanted] and until == heard
    assert [(each.start, each.end) for each in found] == [pytest.approx(each[:2]) for each in wanted]


def test_phrases_that_have_no_end() -> None:
    found, until = phrases([25, 1, 30, 30, 2, 3], TOKENS, 0.5)
    assert found == [Phrase(0.0, 0.1, (1,)), Phrase(0.1, 0.5, (2, 3))] and until == 0.5
    found, until = phrases([25, 1, 30, 30, 2, 3], TOKENS, 0.5, broken=True)
    assert found == [Phrase(0.0, 0.1, (1,))] and until == 0.1
    assert phrases([25, 1, 2], TOKENS, 0.5, broken=True) == ([Phrase(0.0, 0.5, (1, 2))], 0.5)
    assert phrases([25, 1, 59], TOKENS, 0.5)[0] == [Phrase(0.0, 0.5, (1,))]  # a time behind the end of the sound
    assert phrases([END], TOKENS, 0.5) == ([], 0.5)


# -- alignment -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (6, 1), (7, 30), (30, 7)])
def test_warping_is_that_of_the_reference(shape: tuple[int, int]) -> None:
    cost = np.random.default_rng(sum(shape)).standard_normal(shape)
    for ours, theirs in zip(warped(cost), generation_whisper._dynamic_time_warping(cost), strict=True):
        assert ours.tolist() == theirs.tolist()
    tied = np.zeros(shape)
    assert warped(tied)[1].tolist() == generation_whisper._dynamic_time_warping(tied)[1].tolist()


@pytest.mark.parametrize("frames", [3, 4, 50])
def test_medians_are_those_of_the_reference(frames: int) -> None:
    weights = torch.randn(2, 5, frames, generator=torch.Generator().manual_seed(1))
    assert torch.equal(medians(weights, 7), generation_whisper._median_filter(weights, 7))


def attention(heads: int = 3, tokens: int = 9, frames: int = 60) -> Tensor:
    """Heads that walk through the frames, in noise."""
    generator = torch.Generator().manual_seed(5)
    at = torch.linspace(4, frames - 6, tokens)[:, None]
    near = -((torch.arange(frames) - at) ** 2) / 8
    return (near + 0.3 * torch.randn(heads, tokens, frames, generator=generator)).softmax(-1)


def test_times_of_tokens_are_those_of_the_reference() -> None:
    weights = attention()
    layers = [[w[None, None] for w in weights]]  # one step that read all tokens: a layer for each head
    given_outputs: Any = type("Outputs", (dict,), {"__getattr__": dict.__getitem__})
    outputs = given_outputs(cross_attentions=layers, sequences=torch.zeros(1, 10))
    holder = SimpleNamespace(config=SimpleNamespace(decoder_layers=3, median_filter_width=7))
    wanted = Reference._extract_token_timestamps(holder, outputs, [[0, 0], [1, 0], [2, 0]], num_input_ids=0)  # type: ignore[arg-type]
    found = token_times(weights)
    assert found.tolist() == pytest.approx(wanted[0, :-1].tolist(), abs=1e-6)
    assert len(found) == 9 and (np.diff(found) >= 0).all() and found[-1] > 0.9


class Bytes:
    """A tokenizer: an id is a byte, or from 256 on a piece."""

    PIECES = (" the", " sea", " was", " blue", " «", "\"", " (", ")", ".", ",", " ", "ly", " “", "”", "'s", "...")
    eos_token_id = 1000
    language = None

    def decode(self, ids: Any, **_: Any) -> str:
        raw = b"".join(bytes([i]) if i < 256 else self.PIECES[i - 256].encode() for i in ids)
        return raw.decode(errors="replace")


BYTES = st.sampled_from([*range(256, 256 + len(Bytes.PIECES)), ord("a"), ord("-"), 0xE6, 0xB5, 0xB7, 0xC3, 0xA9])


@settings(max_examples=60, deadline=None)
@given(ids=st.lists(BYTES, min_size=1, max_size=12), spaces=st.booleans())
def test_words_are_those_of_the_reference(ids: list[int], spaces: bool) -> None:
    language = "english" if spaces else "chinese"
    wanted, _, places = tokenization_whisper._combine_tokens_into_words(Bytes(), ids, language)
    found = words(Bytes(), ids, spaces=spaces)
    whole = [each for each in found if each[1][-1] in [p for group in places for p in group]]
    assert [text for text, _ in whole] == wanted and [group for _, group in whole] == places


def test_words_have_their_marks() -> None:
    ids = [256, 257, 264, 266 + 2, 258, 259, 269, 0xE6, 0xB5, 0xB7]
    assert [text for text, _ in words(Bytes(), ids)] == [" the", " sea.", " “ was", " blue”海"]
    assert sorted(place for _, places in words(Bytes(), ids) for place in places) == list(range(10))
