from __future__ import annotations

import math
import random
import statistics

import pytest

from conjure.core.errors import ConjureError
from conjure.metrics import scores
from conjure.metrics.harness import Scored
from conjure.metrics.scores import Figure


def test_choices_by_four_lengths() -> None:
    said = [Scored(-6.0, False, 2), Scored(-7.0, False, 4), Scored(-6.5, False, 1), Scored(-9.0, False, 3)]
    choices = ["ab", "abcd", "ééé", "x" * 20]
    expected = {"acc": 0, "acc_norm": 3, "acc_bytes": 3, "acc_tokens": 1}
    for metric, right in expected.items():
        found = [scores.chosen(said, choices, gold)[metric] for gold in range(4)]
        assert found == [float(gold == right) for gold in range(4)]
    long, short = Scored(-6.0, False, 1), Scored(-4.0, False, 1)
    assert scores.chosen([long, short], ["éé", "x"], 0) == {"acc": 0, "acc_norm": 1, "acc_bytes": 1, "acc_tokens": 0}
    assert scores.chosen([long, Scored(-3.5, False, 1)], ["éé", "xx"], 0)["acc_bytes"] == 1
    assert scores.chosen([long, Scored(-5.0, False, 1)], ["éé", "xx"], 0)["acc_norm"] == 0
    assert scores.chosen([long, long], ["a", "b"], 0)["acc"] == 1, "of equals the first"
    with pytest.raises(ConjureError, match="with a text"):
        scores.chosen([long, long], ["a", ""], 0)


def test_mass_on_true_answers() -> None:
    said = [Scored(math.log(share), False, 1) for share in (0.1, 0.2, 0.3)]
    assert scores.true_mass(said, [1, 0, 1]) == pytest.approx(4 / 6)


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("3 + 4\n#### 1,234", "1,234", "1,234"),
        ("#### -7.5. then $1,000.", "-7.5.", "1,000."),
        ("no", "[invalid]", "[invalid]"),
        ("it is 5", "[invalid]", "5"),
    ],
)
def test_answers_in_texts(text: str, strict: str, flexible: str) -> None:
    assert scores.extracted(text, r"#### (\-?[0-9\.\,]+)", 0) == strict
    found = scores.extracted(text, r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1)
    assert found.removeprefix("$") == flexible


def test_exact_match_ignores_what_it_is_told() -> None:
    ignored = (",", r"\$", "(?s).*#### ", r"\.$")
    assert scores.exact_match("$1,234.", "because\n#### 1234", ignored) == 1
    assert scores.exact_match("1235", "#### 1234", ignored) == 0
    assert scores.exact_match("Paris", "paris", ()) == 1


def test_means_and_their_errors() -> None:
    values = [1.0, 0.0, 0.0, 1.0, 1.0]
    found = scores.aggregate("acc", values)
    assert found.value == pytest.approx(0.6) and found.n == 5
    assert found.stderr == pytest.approx(statistics.stdev(values) / math.sqrt(5))
    assert scores.aggregate("acc", [1.0]) == Figure(1.0, None, 1)
    with pytest.raises(ConjureError, match="no item"):
        scores.aggregate("acc", [])


def test_the_bootstrap_draws_as_pythons_generator_does() -> None:
    values = [-0.5, -1.0, -3.0, -0.1, -2.0, -0.7]
    draws = []
    for seed in range(2):
        own = random.Random(seed)
        draws += [math.exp(-sum(own.choices(values, k=6)) / 6) for _ in range(1000)]
    found = scores.aggregate("perplexity", values, 2000)
    assert found.value == pytest.approx(math.exp(7.3 / 6))
    assert found.stderr == pytest.approx(statistics.stdev(draws), rel=1e-9)


def test_ratios() -> None:
    pairs = [(-10.0, 4), (-20.0, 6)]
    assert scores.aggregate("word_perplexity", pairs).value == pytest.approx(math.exp(3))
    assert scores.aggregate("word_perplexity", pairs)[1:] == (None, 2)
    assert scores.aggregate("bits_per_byte", pairs).value == pytest.approx(3 / math.log(2))
    assert scores.aggregate("byte_perplexity", [(-1e6, 1)]).value == math.inf


def test_pooling_suites() -> None:
    parts = [Figure(0.5, 0.1, 10), Figure(0.8, 0.05, 30)]
    found = scores.pooled(parts)
    assert found.value == pytest.approx(0.725) and found.n == 40
    assert found.stderr == pytest.approx(math.sqrt((9 * 0.01 * 10 + 29 * 0.0025 * 30) / 38 / 40))
    assert scores.pooled([Figure(1.0, None, 1), parts[0]]).stderr is None
