"""What is written keeps to the grammar; what cannot be kept to says so."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest
import torch

from conjure.codecs.tokenizer import Tokenizer, train_bpe
from conjure.core.errors import ConjureError
from conjure.decoding.generate import Decoding, generate
from conjure.decoding.grammar import Grammar, Grammars
from tests.decoding.networks import toy

VOCAB = 300
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"enum": ["Ann", "Bob"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(['{"name": "Bob", "age": 31, "tags": [true, false]} the cat sat on the mat, yes or no'] * 9, 290)


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Grammars:
    return Grammars(tokenizer, end=[0], size=VOCAB)


def texts(tokenizer: Tokenizer, constraints: list[Grammar | None], **settings: Any) -> list[str]:
    network, seeds = toy(vocab=VOCAB), list(range(len(constraints)))
    decoding = Decoding(tokens=200, **settings)
    prompts = [tokenizer.encode("the cat" * (seed + 1)) for seed in seeds]
    found = generate(network, tokenizer, prompts, decoding, seeds=seeds, end=[0], constraints=constraints)
    assert all(each.ended == "end" for each, rule in zip(found, constraints) if rule is not None)
    return [each.text for each in found]


@pytest.mark.parametrize("settings", [{}, {"temperature": 0}, {"lookup": 4}, {"beams": 2}, {"temperature": 2.0}])
def test_json_keeps_to_its_schema(tokenizer: Tokenizer, grammars: Grammars, settings: dict[str, Any]) -> None:
    for text in texts(tokenizer, [grammars.json(SCHEMA) for _ in range(2)], **settings):
        value = json.loads(text)
        assert list(value) == ["name", "age", "tags"] and value["name"] in ("Ann", "Bob") and 0 <= value["age"] <= 99
        assert len(value["tags"]) <= 2 and all(isinstance(tag, bool) for tag in value["tags"])


def test_regex_grammar_and_choice_each_in_its_row(tokenizer: Tokenizer, grammars: Grammars) -> None:
    options = ['say "no"\n', "yes", "yes!", "ja \\ é中"]
    rules = [
        grammars.regex(r"[a-f]{3}-[0-9]{1,4}\."),
        None,
        grammars.choice(options),
        grammars.lark('start: "x" y*\ny: "12"'),
    ]
    one, free, two, three = texts(tokenizer, rules)
    assert re.fullmatch(r"[a-f]{3}-[0-9]{1,4}\.", one) and not re.fullmatch(r"[a-f]{3}-[0-9]{1,4}\.", free)
    assert two in options and re.fullmatch(r"x(12)*", three)


@pytest.mark.parametrize("option", ['say "no"\n', "ja \\ é中", "\t/[a-z]+/ | x"])
def test_choices_are_literal(tokenizer: Tokenizer, grammars: Grammars, option: str) -> None:
    assert texts(tokenizer, [grammars.choice([option])]) == [option]


def test_a_draw_among_allowed_tokens_keeps_their_proportions(tokenizer: Tokenizer, grammars: Grammars) -> None:
    network, prompt = toy(vocab=VOCAB), tokenizer.encode("the")
    (found,) = generate(
        network,
        tokenizer,
        [prompt],
        Decoding(tokens=1, alternatives=2),
        seeds=[0],
        constraints=[grammars.regex("[xz]")],
    )
    with torch.inference_mode():
        log_p_V = network(torch.tensor([prompt]))[0, -1].log_softmax(-1)
    (a, log_a), (b, log_b) = found.alternatives[0]
    assert {tokenizer.decode([a]), tokenizer.decode([b])} == {"x", "z"}
    assert log_a - log_b == pytest.approx(float(log_p_V[a] - log_p_V[b]), abs=1e-4)


def test_states_are_copied(tokenizer: Tokenizer, grammars: Grammars) -> None:
    rule = grammars.regex("ab|cd")
    other = rule.copy()
    other.accept(tokenizer.encode("c")[0])
    allowed = [index for index, yes in enumerate(other.mask().tolist()) if yes]
    assert [tokenizer.decode([index]) for index in allowed] == ["d"]
    assert int(rule.mask().sum()) > 1 and len(rule.mask()) == VOCAB and not rule.finished
    other.accept(allowed[0])
    assert other.finished


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("json", {"type": "integer", "minimum": 5, "maximum": 3}, "minimum .5. is greater than maximum .3."),
        ("json", {"allOf": [{"type": "integer"}, {"type": "string"}]}, "Unsatisfiable"),
        ("json", {"type": "nonsense"}, "JSON schema: Invalid type: nonsense"),
        ("json", "{nope", "JSON schema: no valid JSON: key must be"),
        ("regex", "((", "regular expression: .*unclosed group"),
        ("lark", "start: foo", "grammar: .*unknown name"),
        ("choice", [], "choice: expected texts"),
    ],
)
def test_what_nothing_satisfies_is_refused(grammars: Grammars, kind: str, given: Any, message: str) -> None:
    with pytest.raises(ConjureError, match=re.compile(message, re.DOTALL)):
        getattr(grammars, kind)(given)


def test_a_grammar_that_is_stuck_says_so(tokenizer: Tokenizer, grammars: Grammars) -> None:
    with pytest.raises(ConjureError, match="the grammar allows no further token"):
        texts(tokenizer, [grammars.regex(r"[^\s\S]")])


class Nothing:
    """A constraint that allows nothing."""

    finished = False

    def mask(self) -> torch.Tensor:
        return torch.zeros(VOCAB, dtype=torch.bool)

    def accept(self, token: int) -> None: ...

    def forced(self) -> list[int]:
        return []

    def copy(self) -> Nothing:
        return self


def test_a_constraint_that_allows_nothing_says_after_how_many_tokens(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConjureError, match="allows no token after 0 tokens"):
        generate(toy(vocab=VOCAB), tokenizer, [[5]], Decoding(), seeds=[0], constraints=[Nothing()])


def test_forced_ids_outside_the_grammar_are_refused(tokenizer: Tokenizer, grammars: Grammars) -> None:
    with pytest.raises(ConjureError, match="left the grammar"):
        texts(tokenizer, [grammars.regex("yes")], forced_first=tuple(tokenizer.encode("q")))


def test_without_the_library_the_error_says_what_to_install(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ConjureError, match="pip install llguidance"):
        Grammars(tokenizer)
