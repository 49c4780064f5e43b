"""Settings that make no sense are refused by name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from conjure.core.errors import ConjureError
from conjure.decoding.settings import Decoding


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": 0}, "tokens: expected at least 1, got 0"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"top_p": 1.1}, "top_p: expected a number from 0 to 1"),
        ({"min_p": math.nan}, "min_p"),
        ({"top_k": -1}, "top_k"),
        ({"repetition_penalty": 0}, "repetition_penalty: expected above 0"),
        ({"presence_penalty": math.inf}, "presence_penalty"),
        ({"logit_bias": {3: math.nan}}, r"logit_bias\[3\]"),
        ({"lookup": 33}, "lookup: expected at most 32"),
        ({"best": 2}, "best: expected at most beams or best_of"),
        ({"beams": 2, "best_of": 2}, "beams and best_of are different ways"),
        ({"contrastive_alpha": 0.5}, "top_k"),
        ({"temperature": 0, "best_of": 2}, "greedy decoding gives the same text"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConjureError, match=message):
        Decoding(**settings)


def test_the_defaults_are_neutral() -> None:
    assert not Decoding().scored and Decoding(best_of=2).scored and Decoding().logit_bias == {}
