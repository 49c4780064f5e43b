"""A transformer over the steps of four-part music that writes, continues, harmonises and fills in by one rule.

In each step it says the notes of the four voices one after the other, each knowing those before it, so the probability
of a piece is exact: p(piece) = prod over steps and voices of p(note | earlier steps, voices said before it, what was
told). Notes that were told stand in front as a score with gaps, which every later slot sees whole.

A slot of the score holds the told notes of one step. A slot of the writing holds the notes of the step before and the
told ones of its own, and says its own. Both have the step as their rotary position.

Legend: B rows, T steps, V voices, D width, N tokens of a voice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.codecs.chorale_tokens import HIDDEN, INPUTS, STEPS_PER_BAR, TOKENS, VOICES
from conjure.codecs.music_words import KEYS, MOTIONS
from conjure.core.errors import ConjureError
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.cache import Cache
from conjure.nn.cross_entropy import IGNORED, linear_cross_entropy
from conjure.nn.feedforward import FeedForward
from conjure.nn.linear import embedding
from conjure.nn.norm import RMSNorm
from conjure.nn.position import Rope

BEATS_LEFT = 32
"""How near the end is told up to so many beats; one value more where it is not told."""
FACTS = ("phase", "left", "key", "motion", "stride")
SIZES = (STEPS_PER_BAR, BEATS_LEFT + 1, KEYS + 1, MOTIONS + 1, 2)
"""Values of each fact; the last one of left, key and motion is: not told."""
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
        order = torch.tensor([ORDER.index(voice) for voice in range(len(VOICES))])
        self.register_buffer("earlier_VV", order[:, None] > order[None, :], persistent=False)
        offsets = torch.tensor([sum(SIZES[:k]) for k in range(len(SIZES))])
        self.register_buffer("fact_offsets", offsets, persistent=False)
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
        total = y_BTVD.new_zeros((), dtype=torch.float32)
        for voice, weight_ND in enumerate(self.out.weight.chunk(len(VOICES))):
            targets_BT = notes_BTV[..., voice].masked_fill(~asked_BTV[..., voice], IGNORED)
            total = total + linear_cross_entropy(y_BTVD[:, :, voice].flatten(0, 1), weight_ND, targets_BT.flatten())
        return total

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
        return self.chosen(x_BTD, notes_BTV, (told_BTV != HIDDEN)[..., None, :] | self.earlier_VV)

    def score(self, told_BTV: Tensor, facts_BTF: Tensor) -> Tensor:
        """Slots of the score, `[B, T, D]`."""
        return self._noted(self.told, told_BTV, facts_BTF, 0)

    def writing(self, before_BTV: Tensor, told_BTV: Tensor, facts_BTF: Tensor) -> Tensor:
        """Slots of the writing, `[B, T, D]`."""
        x_BTD = self._noted(self.before, before_BTV, facts_BTF, 1)
        return x_BTD + F.embedding(self._rows(told_BTV, INPUTS), self.told.weight).sum(2)

    def chosen(self, x_BTD: Tensor, notes_BTV: Tensor, known: Tensor) -> Tensor:
        """`[B, T, V, D]`; `known` `[..., V, V]` says which voices' notes each voice knows. Its own it never does."""
        own_VV = torch.eye(len(VOICES), dtype=torch.bool, device=x_BTD.device)
        known = (known & ~own_VV).to(x_BTD.dtype)
        said_BTVD = F.embedding(self._rows(notes_BTV.clamp_min(0), TOKENS), self.said.weight).to(x_BTD.dtype)
        x_BTVD = self._dropped(x_BTD)[:, :, None] + self.voice.weight.to(x_BTD.dtype) + known @ said_BTVD
        for choice in self.choices:
            x_BTVD = choice(x_BTVD)
        return self.norm(x_BTVD)

    def logits(self, y_BTVD: Tensor) -> Tensor:
        """float32 `[B, T, V, N]`."""
        weight_VND = self.out.weight.unflatten(0, (len(VOICES), TOKENS)).to(y_BTVD.dtype)
        return torch.einsum("btvd,vnd->btvn", y_BTVD, weight_VND).float()

    def cache(self, batch: int, capacity: int) -> Cache:
        return self.stack.cache(batch, capacity)

    def step(self, x_BTD: Tensor, positions_T: Tensor, cache: Cache) -> Tensor:
        """The next slots into the cache; the hidden state of the last of them, `[B, D]`."""
        return self.stack.hidden(embedded=x_BTD, positions=positions_T, cache=cache)[:, -1]

    def voice_logits(self, x_BD: Tensor, notes_BV: Tensor, known_BV: Tensor, voice: int) -> Tensor:
        """float32 `[B, N]` of one voice in a step of which the notes `known_BV` are there."""
        known_BTVV = known_BV[:, None, None, :].expand(-1, 1, len(VOICES), -1)
        y_BTVD = self.chosen(x_BD[:, None], notes_BV[:, None], known_BTVV)
        return (y_BTVD[:, 0, voice] @ self.out.weight[voice * TOKENS : (voice + 1) * TOKENS].T).float()

    def flops(self, batch: int, steps: int, scored: bool = False) -> float:
        """Of one forward pass over `batch` rows, multiply-adds times two."""
        slots = steps * (1 + scored)
        within = sum(p.numel() for p in self.choices.parameters()) + self.out.weight.numel() / len(VOICES)
        return self.stack.flops(batch, slots) + 2.0 * batch * steps * len(VOICES) * within

    def _noted(self, table: nn.Embedding, tokens_BTV: Tensor, facts_BTF: Tensor, part: int) -> Tensor:
        x_BTD = table(self._rows(tokens_BTV, INPUTS)).sum(2) + self.facts(facts_BTF + self.fact_offsets).sum(2)
        return self._dropped((x_BTD + self.part.weight[part]).to(self.stack.compute_dtype))

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training)

    def _rows(self, tokens_BTV: Tensor, size: int) -> Tensor:
        return tokens_BTV + torch.arange(len(VOICES), device=tokens_BTV.device) * size
