"""A codec of speech that works on spectrograms: mel bands in, a few numbers a frame, and an inverse Fourier transform
out, so nothing in it runs at the rate of samples.

ConvNeXt blocks and the transform at the end are those of Vocos (Siuzdak 2023, arXiv 2306.00814), the books between them
those of SoundStream (Zeghidour et al. 2021, arXiv 2107.03312); WavTokenizer (Ji et al. 2024, arXiv 2408.16532) decodes
codes that way too. The encoder hears how loud each band is and no phases; the decoder makes its own, so what comes back
sounds alike and is not the same wave.

Legend: B rows, N samples, W samples of a window, F frequencies, M mel bands, T frames of the transform, S frames of
codes (two of the transform), D width of a vector, Q books.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.codecs.log_mel import Mel, mel_filters
from conjure.core.errors import ConjureError
from conjure.models.sound_codes import SoundCodes
from conjure.nn.convnext import ConvNeXt, TimeConvolution
from conjure.nn.linear import Linear
from conjure.nn.modulation import leave_to_adam
from conjure.nn.norm import LayerNorm
from conjure.nn.residual_quantiser import ResidualQuantiser

TOGETHER = 2
"""Frames of the transform that one frame of codes describes."""
QUIETEST = 1e-5
"""Loudness (root mean square) below which a sound is not made louder."""
FLOOR = 1e-3
"""Magnitude of a band, in a sound at loudness 1, under which nothing is heard."""
CENTRE, SPREAD = -2.0, 2.5
"""Of the logarithms of bands, about: the network sees what is left without them."""
LOUDEST = 6.0
"""Logarithm at which the decoder's magnitudes are cut."""


@dataclass(frozen=True, kw_only=True)
class SpeechCodecConfig:
    rate: int = 16_000
    window: int = 640
    """Samples of the transform; four hops."""
    bands: int = 100
    fine: int = 128
    """Width of the encoder at the frames of the transform."""
    encoder: int = 160
    """Width of the encoder at the frames of codes."""
    encoder_layers: int = 3
    dim: int = 32
    """Of the vectors that are coded."""
    books: int = 6
    codes: int = 1024
    coarse: int = 192
    """Width of the decoder at the frames of codes."""
    coarse_layers: int = 3
    decoder: int = 160
    """Width of the decoder at the frames of the transform."""
    decoder_layers: int = 3
    kernel: int = 7
    decay: float = 0.98
    """Of the codes' moving averages, for each forward pass."""
    dead: float = 0.05
    """A code below this part of the mean use is placed anew."""

    def __post_init__(self) -> None:
        for name in ("rate", "bands", "fine", "encoder", "dim", "books", "codes", "coarse", "decoder", "encoder_layers",
                     "coarse_layers", "decoder_layers"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConjureError(f"codec: {name}: expected at least 1, got {getattr(self, name)}")
        if self.window < 8 or self.window % 8 or self.kernel % 2 == 0:
            raise ConjureError(f"codec: expected a window of whole eighths and an odd kernel, got {self.window} and "
                               f"{self.kernel}")  # fmt: skip
        if not 0 <= self.decay < 1 or not 0 <= self.dead < 1:
            raise ConjureError("codec: expected decay and dead from 0 to below 1")

    @property
    def channels(self) -> int:
        return 1

    @property
    def step(self) -> int:
        """Samples from one frame of the transform to the next."""
        return self.window // 4

    @property
    def hop(self) -> int:
        return TOGETHER * self.step

    @property
    def mel(self) -> Mel:
        return Mel(rate=self.rate, window=self.window, fft=self.window, hop=self.step, bands=self.bands,
                   high=self.rate / 2, power=1.0, floor=FLOOR, base="e")  # fmt: skip

    @property
    def reach(self) -> int:
        """Frames of codes before and behind one that may have a part in its codes or in its sound, at most."""
        half, ends = self.kernel // 2, 2
        encoder = half * self.encoder_layers + -(-2 * half // TOGETHER) + ends
        decoder = half * (self.coarse_layers + 1) + -(-half * self.decoder_layers // TOGETHER) + ends
        return max(encoder, decoder)


class SpeechCodec(nn.Module):
    """forward(x_B1N, books_B) -> the sound that comes back, the codes `[B, Q, S]`, the commitment `[B]`."""

    window_W: Tensor
    filters_MF: Tensor

    def __init__(self, config: SpeechCodecConfig) -> None:
        super().__init__()
        self.config = c = config
        self.register_buffer("window_W", torch.hann_window(c.window), persistent=False)
        self.register_buffer("filters_MF", mel_filters(c.mel), persistent=False)
        self.listen = TimeConvolution(c.bands, c.fine, 3)
        self.listening = _blocks(c.fine, 2, 1, c.kernel)
        self.pool = Linear(TOGETHER * c.fine, c.encoder)
        self.encoder = _blocks(c.encoder, 2, c.encoder_layers, c.kernel)
        self.encoded = LayerNorm(c.encoder, eps=1e-6)
        self.narrow = Linear(c.encoder, c.dim)
        self.quantiser = ResidualQuantiser(c.books, c.codes, c.dim, decay=c.decay, dead=c.dead)
        self.widen = TimeConvolution(c.dim, c.coarse, c.kernel)
        self.widened = LayerNorm(c.coarse, eps=1e-6)
        self.coarse = _blocks(c.coarse, 2, c.coarse_layers, c.kernel)
        self.unpool = Linear(c.coarse, TOGETHER * c.decoder)
        self.decoder = _blocks(c.decoder, 2, c.decoder_layers, c.kernel)
        self.decoded = LayerNorm(c.decoder, eps=1e-6)
        self.head = Linear(c.decoder, c.window + 2)
        for layer in (self.pool, self.narrow, self.unpool, self.head):
            leave_to_adam(layer.weight)

    @torch.no_grad()
    def encode(self, x_BCN: Tensor, books: int = 0) -> SoundCodes:
        """Of sounds of any length, which are brought to one loudness and filled up with silence to whole frames."""
        if x_BCN.shape[1] != 1 or not x_BCN.shape[-1]:
            raise ConjureError(f"expected sound of 1 channel, got {list(x_BCN.shape)}")
        level_B1 = loudness(x_BCN[:, 0])
        x_BN = F.pad(x_BCN[:, 0] / level_B1, (0, -x_BCN.shape[-1] % self.config.hop))
        return SoundCodes((self.quantiser.encode(self.vectors(x_BN), books),), (level_B1,), x_BCN.shape[-1])

    @torch.no_grad()
    def decode(self, codes: SoundCodes) -> Tensor:
        """The sound `[B, 1, N]`, within -1 and 1 or a little more."""
        (ids_BQS,), (level_B1,) = codes.parts, codes.scales
        made_BN = self.sound(self.quantiser.decode(ids_BQS))
        return (made_BN if level_B1 is None else made_BN * level_B1)[:, None, : codes.samples]

    def forward(self, x_B1N: Tensor, books_B: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """N is a multiple of the hop."""
        level_B1 = loudness(x_B1N[:, 0])
        q_BDS, ids_BQS, commitment_B = self.quantiser(self.vectors(x_B1N[:, 0] / level_B1), books_B)
        return (self.sound(q_BDS) * level_B1)[:, None], ids_BQS, commitment_B

    @torch.no_grad()
    def start_from(self, x_B1N: Tensor) -> None:
        """Codes where the encoder puts these sounds."""
        self.quantiser.start_from(self.vectors(x_B1N[:, 0] / loudness(x_B1N[:, 0])))

    def vectors(self, x_BN: Tensor) -> Tensor:
        """What is to be coded, `[B, D, S]`, of sound at loudness 1 that is whole frames long."""
        bands_BTM = (self.spectrum(x_BN).abs() @ self.filters_MF.T).clamp_min(FLOOR).log()
        h_BTD = self.listening(self.listen((bands_BTM - CENTRE) / SPREAD))
        h_BSD = self.encoder(self.pool(h_BTD.unflatten(1, (-1, TOGETHER)).flatten(2)))
        return self.narrow(self.encoded(h_BSD)).transpose(1, 2)

    def sound(self, q_BDS: Tensor) -> Tensor:
        """float32 `[B, S hop]`, at loudness 1 or so."""
        h_BSD = self.coarse(self.widened(self.widen(q_BDS.transpose(1, 2))))
        h_BTD = self.unpool(h_BSD).unflatten(2, (TOGETHER, -1)).flatten(1, 2)
        log_BTF, phase_BTF = self.head(self.decoded(self.decoder(h_BTD))).float().chunk(2, dim=-1)
        return self.samples(torch.polar(log_BTF.clamp(max=LOUDEST).exp(), phase_BTF))

    def spectrum(self, x_BN: Tensor) -> Tensor:
        """complex `[B, T, F]`: frame t is centred on the middle of its own step, silence beyond the ends."""
        side = (self.config.window - self.config.step) // 2
        frames_BTW = F.pad(x_BN, (side, side)).unfold(1, self.config.window, self.config.step)
        return torch.fft.rfft(frames_BTW * self.window_W)

    def samples(self, spectrum_BTF: Tensor) -> Tensor:
        """The inverse, float32 `[B, T step]`: windowed frames added up, and divided by the squared windows."""
        c = self.config
        frames_BTW = torch.fft.irfft(spectrum_BTF, n=c.window) * self.window_W
        weight_1TW = self.window_W.square().expand(1, frames_BTW.shape[1], -1)
        side = (c.window - c.step) // 2
        added = [_overlapped(each, c.step)[:, side:-side] for each in (frames_BTW, weight_1TW)]
        return added[0] / added[1]

    def flops(self, samples: int) -> float:
        """Multiply-adds times two of the layers and searches over so many samples, without the transforms."""
        c = self.config
        fine = 3 * c.bands * c.fine + _products(c.fine, 2, 1, c.kernel) + (c.window + 2) * c.decoder
        fine += _products(c.decoder, 2, c.decoder_layers, c.kernel)
        coarse = TOGETHER * (c.fine * c.encoder + c.coarse * c.decoder)
        coarse += c.encoder * c.dim + c.kernel * c.dim * c.coarse
        coarse += _products(c.encoder, 2, c.encoder_layers, c.kernel) + c.books * c.codes * c.dim
        coarse += _products(c.coarse, 2, c.coarse_layers, c.kernel)
        return 2.0 * samples / c.hop * (TOGETHER * fine + coarse)


def loudness(x_BN: Tensor) -> Tensor:
    """Root mean square, `[B, 1]`, at least `QUIETEST`."""
    return x_BN.square().mean(1, keepdim=True).sqrt().clamp_min(QUIETEST)


def _blocks(dim: int, growth: int, layers: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(*(ConvNeXt(dim, growth * dim, kernel=kernel, gate=1 / layers) for _ in range(layers)))


def _products(dim: int, growth: int, layers: int, kernel: int) -> int:
    """Multiply-adds of such blocks for each frame."""
    return layers * dim * (2 * growth * dim + kernel)


def _overlapped(frames_BTW: Tensor, step: int) -> Tensor:
    """Frames that begin `step` apart, added: `[B, (T - 1) step + W]`."""
    B, T, W = frames_BTW.shape
    parts = frames_BTW.unflatten(2, (W // step, step))
    total = frames_BTW.new_zeros(B, T + W // step - 1, step)
    for place in range(W // step):
        total[:, place : place + T] += parts[:, :, place]
    return total.flatten(1)
