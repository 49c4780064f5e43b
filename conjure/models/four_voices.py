"""A transformer over the steps of four-part music that writes, continues, harmonises and fills in by one rule.

In each step it says the notes of the four voices one after the other, each knowing those before it, so the probability
of a piece is exact: p(piece) = prod over steps and voices of p(note | earlier steps, voices said before it, what was
told). Notes that were told stand in front as a score with gaps, which every later slot sees whole.

A slot of the score holds the told notes of one step. A slot of the writing holds the notes of the step before and the
told ones of its own, and says its own. Both have the step as their rotary position.

Voice leading is about how voices move against each other, so that is said in so many words: a note's logits are those
of its pitch and those of its leap from the voice's last note, and a voice that is to speak knows of each one that has
spoken how far it moved, from which interval, and how far the new note lies from the speaker's last one.

Legend: B rows, T steps, V voices, W other voices, D width, N tokens of a voice, L leaps, I input tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.codecs.chorale_tokens import HIDDEN, INPUTS, REST, STEPS_PER_BAR, TOKENS, VOICES
from conjure.codecs.music_words import MOTIONS
from conjure.core.errors import ConjureError
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.cache import Cache
from conjure.nn.feedforward import FeedForward
from conjure.nn.linear import embedding
from conjure.nn.norm import RMSNorm
from conjure.nn.position import Rope

BEATS_LEFT = 32
"""How near the end is told up to so many beats; one value more where it is not told."""
FACTS = ("phase", "left", "mode", "place", "motion", "stride")
SIZES = (STEPS_PER_BAR, BEATS_LEFT + 1, 2, 12, MOTIONS + 1, 2)
"""Values of each fact; the last one of left and motion is: not told. Mode and place are the key: major or minor, and by
how much the notes lie below where they sound, modulo 12."""
SPAN = 24
"""Leaps up and down that are told apart; larger ones count as this."""
_MOVE = 8  # the same for the moves of other voices
_INTERVALS = 12
_MOVES = _INTERVALS * (2 * _MOVE + 1)
ORDER = (0, 3, 1, 2)
"""The melody is said first, then the bass, then what is between."""


@dataclass(frozen=True, kw_only=True)
class FourVoicesConfig:
    transformer: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(vocab=0, dim=160, layers=5, heads=5, qk_norm=True, rope=Rope(dim=32))
    )
    """Over the steps; without a vocabulary."""
    hidden: int = 320
    """Width of the layers that choose within a step."""
    depth: int = 2
    """Their number."""
    dropout: float = 0.1

    def __post_init__(self) -> None:
        c = self.transformer
        if c.vocab or not c.causal or c.rope is None or c.windows:
            raise ConjureError("model.transformer: expected vocab 0, causal, rope and no windows")
        if self.hidden < 1 or self.depth < 1 or not 0 <= self.dropout < 1:
            raise ConjureError("model: expected hidden and depth above 0, and dropout below 1")


class Choice(nn.Module):
    """x + f(norm x), within a step."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm, self.feed = RMSNorm(dim), FeedForward(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.feed(self.norm(x))


class FourVoices(nn.Module):
    earlier_VV: Tensor
    """Which voices are said before each."""
    fact_offsets: Tensor
    leap_IN: Tensor
    """Which leap leads from a token of the step before to each pitch; the last value where one of them is none."""

    def __init__(self, config: FourVoicesConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.transformer.dim
        self.before = embedding(len(VOICES) * INPUTS, dim)
        self.told = embedding(len(VOICES) * INPUTS, dim)
        self.facts = embedding(sum(SIZES), dim)
        self.part = embedding(2, dim)  # the score, the writing
        self.stack = Transformer(config.transformer)
        self.said = embedding(len(VOICES) * TOKENS, dim)
        self.voice = embedding(len(VOICES), dim)
        self.choices = nn.ModuleList(Choice(dim, config.hidden) for _ in range(config.depth))
        self.norm = RMSNorm(dim)
        self.out = embedding(len(VOICES) * TOKENS, dim)
        self.leap = embedding(len(VOICES) * (2 * SPAN + 1), dim)
        self.moves = embedding(_MOVES + _INTERVALS + 1, dim)
        order = torch.tensor([ORDER.index(voice) for voice in range(len(VOICES))])
        self.register_buffer("earlier_VV", order[:, None] > order[None, :], persistent=False)
        offsets = torch.tensor([sum(SIZES[:k]) for k in range(len(SIZES))])
        self.register_buffer("fact_offsets", offsets, persistent=False)
        from_I1, to_N = torch.arange(INPUTS)[:, None], torch.arange(TOKENS)
        leap_IN = (to_N - from_I1).clamp(-SPAN, SPAN) + SPAN
        none_IN = (from_I1 == REST) | (from_I1 >= TOKENS) | (to_N == REST)
        self.register_buffer("leap_IN", leap_IN.masked_fill(none_IN, 2 * SPAN + 1), persistent=False)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        for module in self.children():
            if isinstance(module, nn.Embedding):
                module.weight.normal_(0, 0.02)
        for choice in self.choices:
            assert isinstance(choice, Choice)
            up, down = choice.feed.up, choice.feed.down
            up.weight.normal_(0, up.in_features**-0.5)
            down.weight.zero_()

    def forward(self, before_BTV: Tensor, told_BTV: Tensor, facts_BTF: Tensor, notes_BTV: Tensor,
                scored_B: Tensor, counted_BT: Tensor) -> Tensor:  # fmt: skip
        """The sum of -log p over all notes that are counted and were not told, a float32 scalar.

        `before_BTV` holds input tokens of the step before each, `told_BTV` those told, `HIDDEN` where none is; `facts`
        the values of `FACTS`; `notes_BTV` the tokens to say. `scored_B` says which rows have a score in front,
        `counted_BT` which steps are no padding.
        """
        y_BTVD = self.hidden(before_BTV, told_BTV, facts_BTF, notes_BTV, scored_B, counted_BT)
        asked_BTV = (told_BTV == HIDDEN) & counted_BT[..., None]
        return F.cross_entropy(self.logits(y_BTVD, before_BTV)[asked_BTV], notes_BTV[asked_BTV], reduction="sum")

    def hidden(self, before_BTV: Tensor, told_BTV: Tensor, facts_BTF: Tensor, notes_BTV: Tensor, scored_B: Tensor,
               counted_BT: Tensor) -> Tensor:  # fmt: skip
        """What each note's logits are made of, `[B, T, V, D]`."""
        x_BTD = self.writing(before_BTV, told_BTV, facts_BTF)
        T = x_BTD.shape[1]
        at_T, mask_BT = torch.arange(T, device=x_BTD.device), None
        if bool(scored_B.any()):
            x_BTD = torch.cat([self.score(told_BTV, facts_BTF), x_BTD], 1)
            at_T = torch.cat([at_T, at_T])
            mask_BT = torch.cat([counted_BT & scored_B[:, None], counted_BT], 1)
            mask_BT = None if bool(mask_BT.all()) else mask_BT
        x_BTD = self.stack.hidden(embedded=x_BTD, positions=at_T, mask_BT=mask_BT)[:, -T:]
        return self.chosen(x_BTD, before_BTV, notes_BTV, (told_BTV != HIDDEN)[..., None, :] | self.earlier_VV)

    def score(self, told_BTV: Tensor, facts_BTF: Tensor) -> Tensor:
        """Slots of the score, `[B, T, D]`."""
        return self._noted(self.told, told_BTV, facts_BTF, 0)

    def writing(self, before_BTV: Tensor, told_BTV: Tensor, facts_BTF: Tensor) -> Tensor:
        """Slots of the writing, `[B, T, D]`."""
        x_BTD = self._noted(self.before, before_BTV, facts_BTF, 1)
        return x_BTD + F.embedding(self._rows(told_BTV, INPUTS), self.told.weight).sum(2)

    def chosen(self, x_BTD: Tensor, before_BTV: Tensor, notes_BTV: Tensor, known: Tensor) -> Tensor:
        """`[B, T, V, D]`; `known` `[..., V, V]` says which voices' notes each voice knows. Its own it never does."""
        own_VV = torch.eye(len(VOICES), dtype=torch.bool, device=x_BTD.device)
        known = (known & ~own_VV).to(x_BTD.dtype)
        said_BTVD = F.embedding(self._rows(notes_BTV.clamp_min(0), TOKENS), self.said.weight).to(x_BTD.dtype)
        x_BTVD = self._dropped(x_BTD)[:, :, None] + self.voice.weight.to(x_BTD.dtype) + known @ said_BTVD
        x_BTVD = x_BTVD + self._moved(before_BTV, notes_BTV, known).to(x_BTD.dtype)
        for choice in self.choices:
            x_BTVD = choice(x_BTVD)
        return self.norm(x_BTVD)

    def logits(self, y_BTVD: Tensor, before_BTV: Tensor) -> Tensor:
        """float32 `[B, T, V, N]`."""
        both_VKD = torch.cat([table.weight.unflatten(0, (len(VOICES), -1)) for table in (self.out, self.leap)], 1)
        pitch_BTVN, leap_BTVL = torch.einsum("btvd,vkd->btvk", y_BTVD, both_VKD.to(y_BTVD.dtype)).float().split(
            [TOKENS, 2 * SPAN + 1], -1)  # fmt: skip
        return pitch_BTVN + F.pad(leap_BTVL, (0, 1)).gather(-1, self.leap_IN[before_BTV])

    def cache(self, batch: int, capacity: int) -> Cache:
        return self.stack.cache(batch, capacity)

    def step(self, x_BTD: Tensor, positions_T: Tensor, cache: Cache) -> Tensor:
        """The next slots into the cache; the hidden state of the last of them, `[B, D]`."""
        return self.stack.hidden(embedded=x_BTD, positions=positions_T, cache=cache)[:, -1]

    def voice_logits(self, x_BD: Tensor, before_BV: Tensor, notes_BV: Tensor, known_BV: Tensor, voice: int) -> Tensor:
        """float32 `[B, N]` of one voice in a step of which the notes `known_BV` are there."""
        known_BTVV = known_BV[:, None, None, :].expand(-1, 1, len(VOICES), -1)
        y_BTVD = self.chosen(x_BD[:, None], before_BV[:, None], notes_BV[:, None], known_BTVV)
        return self.logits(y_BTVD, before_BV[:, None])[:, 0, voice]

    def flops(self, batch: int, steps: int, scored: bool = False) -> float:
        """Of one forward pass over `batch` rows, multiply-adds times two."""
        slots = steps * (1 + scored)
        said = (self.out.weight.numel() + self.leap.weight.numel()) / len(VOICES)
        within = sum(p.numel() for p in self.choices.parameters()) + said
        return self.stack.flops(batch, slots) + 2.0 * batch * steps * len(VOICES) * within

    def _noted(self, table: nn.Embedding, tokens_BTV: Tensor, facts_BTF: Tensor, part: int) -> Tensor:
        x_BTD = table(self._rows(tokens_BTV, INPUTS)).sum(2) + self.facts(facts_BTF + self.fact_offsets).sum(2)
        return self._dropped((x_BTD + self.part.weight[part]).to(self.stack.compute_dtype))

    def _moved(self, before_BTV: Tensor, notes_BTV: Tensor, known: Tensor) -> Tensor:
        """What each voice knows of the moves of those it knows, summed: `[B, T, V, D]`."""
        sounded_BTV, sounding_BTV = (before_BTV != REST) & (before_BTV < TOKENS), (notes_BTV != REST)
        moves_BTV = (notes_BTV - before_BTV).clamp(-_MOVE, _MOVE) + _MOVE
        interval_BTVW = (before_BTV[..., :, None] - before_BTV[..., None, :]) % _INTERVALS
        both_BTVW = (sounded_BTV & sounding_BTV)[..., None, :] & sounded_BTV[..., :, None]
        index_BTVW = interval_BTVW * (2 * _MOVE + 1) + moves_BTV[..., None, :]
        index_BTVW = index_BTVW.masked_fill(~both_BTVW, _MOVES + _INTERVALS)
        away_BTVW = _MOVES + (notes_BTV[..., None, :] - before_BTV[..., :, None]) % _INTERVALS
        there_BTVW = sounding_BTV[..., None, :] & sounded_BTV[..., :, None]
        away_BTVW = away_BTVW.masked_fill(~there_BTVW, _MOVES + _INTERVALS)
        # Counts times a table: cheaper than to look up and add what is mostly not known.
        index_BTVK, known_BTVW = torch.cat([index_BTVW, away_BTVW], -1), known.expand_as(index_BTVW)
        counts_BTVK = known.new_zeros(*index_BTVK.shape[:-1], len(self.moves.weight))
        counts_BTVK.scatter_add_(-1, index_BTVK, torch.cat([known_BTVW, known_BTVW], -1))
        return counts_BTVK @ self.moves.weight.to(known.dtype)

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training)

    def _rows(self, tokens_BTV: Tensor, size: int) -> Tensor:
        return tokens_BTV + torch.arange(len(VOICES), device=tokens_BTV.device) * size
