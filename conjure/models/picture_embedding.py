"""From a text to the embedding of a picture, and from the embedding to the picture.

DALL-E 2, or unCLIP (Ramesh et al. 2022, arXiv 2204.06125): a contrastive pair of encoders gives pictures and texts
vectors in one space; the prior, a diffusion model, draws a picture's vector given the text and the text's own vector
(section 2.2); the decoder, another one, draws a picture given its vector, which it reads as a few tokens (section 2.1).
There the encoders are CLIP's, learnt first and then left alone. Here all four learn at once, and the decoder's loss
reaches the encoder of pictures, so that vectors also hold what the contrast alone would not ask for. The contrast is
that of a picture with its caption and with wrong captions of its own: no loss depends on who else is in the batch.

Legend: B batch, K captions of a picture, T text tokens, E width of an embedding, D width of the networks, S tokens that
an embedding becomes, H and W sides in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.diffusion.flow import RectifiedFlow
from conjure.models.contrastive import Contrastive, ContrastiveConfig, TextTowerConfig
from conjure.models.dit import DiT, DiTConfig
from conjure.models.transformer import TransformerConfig
from conjure.models.vision_tower import VisionTowerConfig
from conjure.nn.linear import Linear

START, PAD = 1, 0
SCALE = 10.0
"""What cosines are multiplied by at first."""
SPREAD = 0.3
"""Of words and places at first."""


@dataclass(frozen=True, kw_only=True)
class PictureEmbeddingConfig:
    """Text tower, picture tower and prior are as wide as `decoder`."""

    vocab: int = 64
    length: int = 16
    """Tokens; longer captions are cut."""
    text_layers: int = 2
    image_layers: int = 3
    patch: int = 8
    """Pixels of a side, of the encoder of pictures."""
    embedding: int = 192
    """Width E."""
    prior_layers: int = 3
    tokens: int = 4
    """Tokens that the decoder reads an embedding as."""
    decoder: DiTConfig = field(default_factory=DiTConfig)
    flow: RectifiedFlow = field(default_factory=RectifiedFlow)
    wrong: int = 4
    """Wrong captions beside the right one."""
    noise: float = 0.1
    """Standard deviation of the noise in which the decoder learns from embeddings, whose values have 1: those of the
    prior are not exact."""
    drop: float = 0.1
    """Share of captions that the prior is not told, so that guidance has something to start from."""

    def __post_init__(self) -> None:
        if self.decoder.channels != 3 or self.decoder.size % self.patch:
            raise ConjureError("pictures have 3 channels and the patch divides their side, got "
                               f"{self.decoder.channels}, {self.patch} and {self.decoder.size}")
        for name in ("wrong", "tokens", "embedding", "prior_layers"):
            if getattr(self, name) < 1:
                raise ConjureError(f"model.{name}: expected at least 1, got {getattr(self, name)}")
        if not 0 <= self.drop < 1 or self.noise < 0:
            raise ConjureError(f"expected drop from 0 to below 1 and noise from 0, got {self.drop} and {self.noise}")

    @property
    def towers(self) -> ContrastiveConfig:
        """The text's vector is the state of its first token."""
        d, places = self.decoder, (self.decoder.size // self.patch) ** 2 + 1
        shape = {"dim": d.dim, "heads": d.heads, "hidden": d.hidden, "causal": False, "activation": "gelu",
                 "gated": False, "qk_norm": True, "positions": "learned"}  # fmt: skip
        text = TransformerConfig(vocab=self.vocab, layers=self.text_layers, max_length=self.length, **shape)
        image = TransformerConfig(vocab=0, layers=self.image_layers, max_length=places, **shape)
        return ContrastiveConfig(
            image=VisionTowerConfig(stack=image, image=d.size, patch=self.patch, projection=self.embedding),
            text=TextTowerConfig(stack=text, pool="end", end=START, projection=self.embedding),
        )

    @property
    def prior(self) -> DiTConfig:
        """An embedding is a picture of one pixel with E channels."""
        d = self.decoder
        return DiTConfig(channels=self.embedding, size=1, patch=1, dim=d.dim, layers=self.prior_layers,
                         heads=d.heads, hidden=d.hidden)


class Told(NamedTuple):
    """What a text says."""

    states_BTD: Tensor
    mask_BT: Tensor
    embedding_BE: Tensor


class Out(NamedTuple):
    """What one pass of all four networks gives."""

    logits_BK: Tensor
    """How well each caption fits the picture."""
    embedding_BE: Tensor
    prior_BE: Tensor
    decoder_B3HW: Tensor


class PictureEmbedding(nn.Module):
    """The towers, the prior and the decoder. Embeddings have length sqrt(E), so that their values spread by about 1."""

    def __init__(self, config: PictureEmbeddingConfig) -> None:
        super().__init__()
        self.config = config
        dim, E = config.decoder.dim, config.embedding
        self.towers = Contrastive(config.towers)
        self.prior, self.text_summary = DiT(config.prior), Linear(E, dim)
        self.decoder, self.image_summary = DiT(config.decoder), Linear(E, dim)
        self.image_tokens = Linear(E, config.tokens * dim)
        nn.init.constant_(self.towers.scale, math.log(SCALE))
        for table in (self.towers.text.stack.embed, self.towers.text.stack.place, self.towers.image.stack.place):
            assert table is not None
            nn.init.normal_(table.weight, std=SPREAD)

    def read(self, words_BT: Tensor) -> Told:
        """What captions say: states, which of them are tokens, embeddings."""
        mask_BT, tower = words_BT != PAD, self.towers.text
        states_BTD = tower.hidden(words_BT, mask_BT)
        assert tower.project is not None
        return Told(states_BTD, mask_BT, self._long(tower.project(states_BTD[:, 0])))

    def look(self, x_B3HW: Tensor) -> Tensor:
        """The embeddings `[B, E]` of pictures in [-1, 1]."""
        return self._long(self.towers.image_features(x_B3HW))

    def _long(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * self.config.embedding**0.5

    def predict(self, x_BE11: Tensor, t_B: Tensor, states_BTD: Tensor, mask_BT: Tensor, text_BE: Tensor) -> Tensor:
        """The prior: `x` is a noisy embedding, as is what comes out."""
        return self.prior(x_BE11, t_B, states_BTD, mask_BT, self.text_summary(text_BE))

    def decode(self, x_B3HW: Tensor, t_B: Tensor, embedding_BE: Tensor) -> Tensor:
        """The decoder: `x` is a noisy picture."""
        tokens_BSD = self.image_tokens(embedding_BE).unflatten(1, (self.config.tokens, -1))
        mask_BS = torch.ones(tokens_BSD.shape[:2], dtype=torch.bool, device=tokens_BSD.device)
        return self.decoder(x_B3HW, t_B, tokens_BSD, mask_BS, self.image_summary(embedding_BE))

    def forward(
        self, x_B3HW: Tensor, words_BKT: Tensor, told_B: Tensor, noisy_B3HW: Tensor, time_B: Tensor, noise_BE: Tensor,
        grain_BE: Tensor, prior_time_B: Tensor,
    ) -> Out:  # fmt: skip
        """The first caption is the right one; the prior reads it where `told`, and nothing elsewhere. `noise` is that
        of the prior, `grain` that of the embedding which the decoder reads."""
        B, K = words_BKT.shape[:2]
        embedding_BE = self.look(x_B3HW)
        read = self.read(words_BKT.flatten(0, 1))
        all_BKE = read.embedding_BE.unflatten(0, (B, K))
        logits_BK = F.cosine_similarity(embedding_BE[:, None], all_BKE, dim=-1) * self.towers.scale.exp()
        empty_1T = torch.full_like(words_BKT[:1, 0], PAD)
        empty_1T[:, 0] = START
        nothing = self.read(empty_1T)
        said = [each.unflatten(0, (B, K))[:, 0] for each in read]
        said = [torch.where(told_B.view(-1, *[1] * (one.dim() - 1)), one, none)
                for one, none in zip(said, nothing, strict=True)]
        target_BE11 = embedding_BE.detach()[..., None, None]
        noisy_BE11 = self.config.flow.noisy(target_BE11, noise_BE[..., None, None], prior_time_B)
        prior_BE = self.predict(noisy_BE11, prior_time_B, *said)[..., 0, 0]
        picture = self.decode(noisy_B3HW, time_B, embedding_BE + self.config.noise * grain_BE)
        return Out(logits_BK, embedding_BE, prior_BE, picture)

    def flops(self, batch: int) -> float:
        """Multiply-adds times two of one forward pass in training."""
        c, d = self.config, self.config.decoder
        layer = 4 * d.dim**2 + 2 * d.dim * d.hidden
        patches = c.towers.image.patches + 1
        text = (c.wrong + 1) * c.length * c.text_layers * (layer + 2 * c.length * d.dim)
        image = patches * c.image_layers * (layer + 2 * patches * d.dim)
        return 2.0 * batch * (text + image) + self.prior.flops(batch, c.length) + self.decoder.flops(batch, c.tokens)
