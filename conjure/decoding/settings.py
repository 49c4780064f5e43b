"""How tokens are chosen: one frozen set of knobs, neutral by default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from conjure.core.errors import ConjureError

MOST_GUESSES = 32
"""Caches of layers with a window can forget a few tokens only."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """The defaults sample from the network's own distribution. `filters` says in which order the rules act."""

    tokens: int = 200
    """At most so many new ones."""
    temperature: float = 1.0
    """0 always takes the best token (greedy)."""
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    """Counts the prompt and what was written."""
    presence_penalty: float = 0.0
    """This and the next count what was written alone."""
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    """Added to the logits of these ids."""
    suppress: tuple[int, ...] = ()
    """Ids that are never drawn."""
    suppress_first: tuple[int, ...] = ()
    """Ids that do not come first (after `forced_first`)."""
    forced_first: tuple[int, ...] = ()
    """The first ids, in this order, whatever the network says."""
    min_tokens: int = 0
    """No end before so many."""
    no_repeat_ngram: int = 0
    """So many ids never stand in the same order twice, prompt included; 0 is off."""
    beams: int = 1
    """Above 1: beam search, which takes no chances: temperature, top_k and the like are not looked at."""
    length_penalty: float = 1.0
    """Beams are ranked by the sum of their log-probabilities over length ** length_penalty."""
    best: int = 1
    """Answers to return for a prompt, the best of `beams` or of `best_of`."""
    best_of: int = 1
    """Draw so many, and keep those with the highest mean log-probability."""
    contrastive_alpha: float = 0.0
    """Above 0: contrastive search among the `top_k` best tokens."""
    stop: tuple[str, ...] = ()
    """The text ends before any of these."""
    lookup: int = 0
    """Guess so many tokens at once from what stands in the text already; changes the speed alone."""
    guesses: int = 4
    """Tokens that a draft network, where there is one, writes ahead."""
    logprobs: bool = False
    """Whether to return the log-probability of each token."""
    alternatives: int = 0
    """How many of the likeliest tokens to return at each place, with their log-probabilities."""

    def __post_init__(self) -> None:
        for name in ("tokens", "beams", "best", "best_of", "guesses"):
            _expect(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("top_k", "min_tokens", "no_repeat_ngram", "lookup", "alternatives"):
            _expect(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        for name in ("lookup", "guesses"):
            _expect(getattr(self, name) <= MOST_GUESSES, name, f"at most {MOST_GUESSES}", getattr(self, name))
        for name in ("top_p", "min_p", "typical_p"):
            _expect(0 <= getattr(self, name) <= 1, name, "a number from 0 to 1", getattr(self, name))
        _expect(0 <= self.temperature < math.inf, "temperature", "a number from 0 up", self.temperature)
        _expect(0 < self.repetition_penalty < math.inf, "repetition_penalty", "above 0", self.repetition_penalty)
        _expect(0 <= self.contrastive_alpha <= 1, "contrastive_alpha", "0 to 1", self.contrastive_alpha)
        for name in ("presence_penalty", "frequency_penalty", "length_penalty"):
            _expect(math.isfinite(getattr(self, name)), name, "a finite number", getattr(self, name))
        for token, value in self.logit_bias.items():
            _expect(not math.isnan(value) and value < math.inf, f"logit_bias[{token}]", "a number", value)
        _expect(self.best <= max(self.beams, self.best_of), "best", "at most beams or best_of", self.best)
        self._check_ways()

    def _check_ways(self) -> None:
        ways = {
            "beams": self.beams > 1,
            "best_of": self.best_of > 1,
            "contrastive_alpha": self.contrastive_alpha > 0,
        }
        asked = [name for name, on in ways.items() if on]
        if len(asked) > 1:
            raise ConjureError(f"{' and '.join(asked)} are different ways to search", hint="choose one of them")
        if self.contrastive_alpha > 0 and self.top_k < 2:
            raise ConjureError(f"contrastive search chooses among top_k tokens, got top_k {self.top_k}", hint="try 4")
        if self.best_of > 1 and self.temperature == 0:
            raise ConjureError("best_of: greedy decoding gives the same text each time", hint="raise the temperature")

    @property
    def scored(self) -> bool:
        """Whether log-probabilities are needed."""
        return self.logprobs or self.best_of > 1


def _expect(true: bool, name: str, expected: str, got: float) -> None:
    if not true:
        raise ConjureError(f"{name}: expected {expected}, got {got}")
