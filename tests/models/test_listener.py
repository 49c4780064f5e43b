"""A listener over networks that are told what to say: segments, times, batches, beams, and what is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from conjure.codecs.voice_activity import Floats
from conjure.core.errors import ConjureError
from conjure.models.listener import Asked, Heard, Listener, Tongue
from conjure.models.transcriber import Hearing

RATE, HOP = 16_000, 640
ALPHABET = ("", "|", "a", "b", "c", "<s>")
MEANS = ("", " ", "a", "b", "c", "")


How = partial(Asked, words=True, voice=None, batch=2)


def frames(said: str, sure: float = 8.0) -> Tensor:
    """Logits for a frame a letter; "_" is the blank."""
    ids = [0 if letter == "_" else ALPHABET.index("|" if letter == " " else letter) for letter in said]
    return sure * torch.nn.functional.one_hot(torch.tensor(ids), len(ALPHABET)).float()


def saying(*texts: str, sizes: list[int] | None = None) -> Callable[[Sequence[Floats]], list[Heard]]:
    """A network that says these texts, one a part."""
    left = list(texts)

    def hear(parts: Sequence[Floats]) -> list[Heard]:
        if sizes is not None:
            sizes.append(len(parts))
        return [Heard(frames(left.pop(0))) for _ in parts]

    return hear


def listener(*texts: str, **kwargs: object) -> Listener:
    return Listener(saying(*texts), MEANS, rate=RATE, hop=HOP, **kwargs)  # type: ignore[arg-type]


def sound(seconds: float) -> Floats:
    return np.full(round(seconds * RATE), 0.1, np.float32)


def test_words_have_the_times_of_their_letters() -> None:
    found = list(listener("_aab_ c__", language="en").transcribe(sound(0.4), How()))
    ((segments, done),) = found
    assert done == pytest.approx(0.4)
    (segment,) = segments
    assert (segment.text, segment.language) == ("ab c", "en")
    times = [(word.text, round(word.start, 3), round(word.end, 3)) for word in segment.words]
    assert times == [("ab", 0.04, 0.16), ("c", 0.24, 0.28)]
    assert (segment.start, segment.end) == (pytest.approx(0.04), pytest.approx(0.28))
    chance = math.exp(8) / (math.exp(8) + len(ALPHABET) - 1)
    assert segment.confidence == pytest.approx(math.log(chance), abs=1e-6)
    assert segment.words[0].probability == pytest.approx(chance, abs=1e-6)


def test_a_pause_begins_a_segment_and_so_does_a_long_one() -> None:
    (segments, _), = listener("a b " + "_" * 14 + "c").transcribe(sound(1), How())  # fmt: skip
    assert [each.text for each in segments] == ["a b", "c"]
    (segments, _), = listener("a b " + "_" * 13 + "c").transcribe(sound(1), How())  # fmt: skip
    assert [each.text for each in segments] == ["a b c"]
    (segments, _), = listener("a___ " * 70).transcribe(sound(14), How(words=False))  # fmt: skip
    assert len(segments) == 2
    assert segments[0].end - segments[0].start <= 12
    assert segments[0].words == ()


def test_parts_are_read_in_batches_and_have_the_time_of_the_whole_sound() -> None:
    sizes = list[int]()
    own = Listener(saying(*"abcabc", sizes=sizes), MEANS, rate=RATE, hop=HOP, seconds=1.0)
    parts = own.parts(sound(2.4), None)
    assert len(parts) > 2
    found = list(own.transcribe(sound(2.4), Hearing(voice=None, batch=2)))
    assert sizes == [2] * (len(parts) // 2) + [1] * (len(parts) % 2)
    segments = [each for some, _ in found for each in some]
    assert "".join(each.text for each in segments) == "abcabc"[: len(parts)]
    assert [each.start for each in segments] == [part.pieces[0][0] / RATE for part in parts]
    assert found[-1][1] == pytest.approx(2.4)


def test_nothing_is_read_where_nobody_speaks() -> None:
    asked = list[int]()
    own = Listener(saying(sizes=asked), MEANS, rate=RATE, hop=HOP)
    assert list(own.transcribe(np.zeros(RATE, np.float32), Hearing())) == []
    assert asked == []


def test_what_is_doubtful_is_left_out() -> None:
    def hear(parts: Sequence[Floats]) -> list[Heard]:
        return [Heard(frames("ab", sure=1.0)) for _ in parts]

    kept, left = (Listener(hear, MEANS, rate=RATE, hop=HOP, doubt=doubt) for doubt in (-2.0, -0.5))
    assert [s.text for found, _ in kept.transcribe(sound(0.1), How()) for s in found] == ["ab"]
    assert [s.text for found, _ in left.transcribe(sound(0.1), How()) for s in found] == []


def test_what_is_written_may_differ_from_what_was_read() -> None:
    own = listener("ab c", write=lambda text: text.upper() + ".")
    ((segments, _),) = own.transcribe(sound(0.2), How())
    assert segments[0].text == "AB C."
    assert [word.text for word in segments[0].words] == ["AB", "C."]


def test_a_tongue_decides_between_what_sounds_alike() -> None:
    heard = Heard(torch.tensor([[0.0, -9, 2.0, 2.1, -9, -9], [3.0, -9, -9, -9, -9, -9]]))
    without = Listener(lambda parts: [heard], MEANS, rate=RATE, hop=HOP)
    assert without.text(heard) == "b"
    likes_a = Tongue(score=lambda known, symbol: (1.0 if symbol == 2 else 0.0, known))
    within = Listener(lambda parts: [heard], MEANS, rate=RATE, hop=HOP, beams=4, tongue=likes_a)
    assert within.text(heard) == "a"
    ((segments, _),) = within.transcribe(sound(0.1), How())
    assert [(w.text, w.start, w.end) for w in segments[0].words] == [("a", 0.0, 0.04)]


def test_a_second_opinion_weighs_as_much_as_it_is_trusted() -> None:
    asked = list[Sequence[Sequence[int]]]()

    def opinion(texts: Sequence[Sequence[int]]) -> list[float]:
        asked.append(texts)
        return [0.0 if list(ids) == [3] else -3.0 for ids in texts]

    heard = Heard(torch.tensor([[0.0, -9, 2.6, 2.1, -9, -9], [3.0, -9, -9, -9, -9, -9]]), opinion)
    for trust, text in ((0.0, "a"), (0.1, "a"), (0.5, "b")):
        assert Listener(lambda parts: [heard], MEANS, rate=RATE, hop=HOP, beams=4, trust=trust).text(heard) == text
    assert len(asked) == 2 and len(asked[0]) > 1  # without trust nobody is asked
    assert Listener(lambda parts: [heard], MEANS, rate=RATE, hop=HOP, trust=0.5).text(heard) == "a"  # one text


def test_what_the_second_opinion_doubts_is_left_out() -> None:
    asked = list[Sequence[Sequence[int]]]()

    def opinion(texts: Sequence[Sequence[int]]) -> list[float]:
        asked.append(texts)
        return [-2.9] * len(texts)

    heard = Heard(frames("ab"), opinion)  # -2.9 of two symbols and an end
    for doubt, text in ((-math.inf, "ab"), (-1.0, "ab"), (-0.9, "")):
        own = Listener(lambda parts: [heard], MEANS, rate=RATE, hop=HOP, doubt=doubt)
        assert own.text(heard) == text
        assert [s.text for found, _ in own.transcribe(sound(0.1), How()) for s in found] == [text] * bool(text)
    assert asked[0] == [[2, 3]] and len(asked) == 4
    assert own.text(Heard(frames("__"), opinion)) == ""
    assert len(asked) == 4  # nothing was heard, nothing to doubt


def test_a_wide_beam_without_a_tongue_adds_the_paths_of_a_text() -> None:
    p_TV = torch.tensor([[0.4, 0.001, 0.598, 0.0003, 0.0003, 0.0004], [0.598, 0.001, 0.4, 0.0003, 0.0003, 0.0004]])
    p = Heard(p_TV.log())
    assert Listener(lambda parts: [p], MEANS, rate=RATE, hop=HOP, beams=4).text(p) == "a"
    blanks = Heard(torch.tensor([[0.6, 0.0, 0.4, 0, 0, 0], [0.6, 0, 0.4, 0, 0, 0]]).clamp_min(1e-9).log())
    assert Listener(lambda parts: [blanks], MEANS, rate=RATE, hop=HOP).text(blanks) == ""
    assert Listener(lambda parts: [blanks], MEANS, rate=RATE, hop=HOP, beams=4).text(blanks) == "a"


def test_symbols_that_write_nothing_do_not_part_words() -> None:
    ids = torch.tensor([2, 5, 0, 3])
    heard = Heard(8 * torch.nn.functional.one_hot(ids, len(ALPHABET)).float())
    assert Listener(lambda parts: [heard], MEANS, rate=RATE, hop=HOP).text(heard) == "ab"


def test_sound_that_cannot_be_read() -> None:
    with pytest.raises(ConjureError, match="at least 25 ms, got 10 ms"):
        list(listener().transcribe(sound(0.01), How()))
    broken = sound(0.1)
    broken[5] = np.nan
    with pytest.raises(ConjureError, match="no numbers"):
        list(listener().transcribe(broken, How()))
    with pytest.raises(ConjureError, match="the blank among 6 symbols"):
        listener(blank=6)
