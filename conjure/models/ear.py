"""A network that hears letters: mel spectrogram -> two convolutions -> blocks of convolution and attention -> CTC, and
beside it a writer that attends to what was heard.

A conformer (Gulati et al. 2020, arXiv 2005.08100) made plain: every block mixes neighbours by a depthwise convolution,
then is a transformer's. The blocks in the middle see every second frame only, and what they find is added to what the
first ones did (after Squeezeformer, Kim et al. 2022, arXiv 2206.00888). A second head behind the first blocks says
which phone each frame is, where the teacher told. CTC says each letter without knowing the others; the writer, a small
decoder, says them one after the other (Watanabe et al. 2017, "Hybrid CTC/attention architecture for end-to-end speech
recognition"), and is asked which of the texts that CTC proposes it would write (two passes: Zhang et al. 2020, arXiv
2012.05481).

Legend: B rows, T frames of 10 ms, S frames of 40 ms, M mel bands, D width, V letters, P phones, L letters of a text,
N texts of one sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.codecs.log_mel import Mel, log_mel
from conjure.codecs.plain_letters import SYMBOLS
from conjure.core.errors import ConjureError
from conjure.models.speech_tower import Conv1d
from conjure.models.transformer import Block, Context, Transformer, TransformerConfig
from conjure.nn.cross_entropy import IGNORED
from conjure.nn.linear import Linear
from conjure.nn.norm import RMSNorm
from conjure.nn.position import Rope, rope_tables

MEL = Mel()
HOP = 4 * MEL.hop
"""Samples of a frame that comes out."""
LEAST = MEL.fft
"""Samples below which there is nothing to hear."""
RANGE = 8.0
"""Powers of ten below the loudest that are heard."""


@dataclass(frozen=True, kw_only=True)
class EarConfig:
    stack: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(
            vocab=0, dim=160, layers=7, heads=5, hidden=448, causal=False, qk_norm=True, rope=Rope(dim=32)
        )
    )
    """Of every block; its layers are those of the three parts together."""
    first: int = 2
    """Blocks that see frames of 40 ms."""
    middle: int = 4
    """Blocks that see frames of 80 ms. What is left sees 40 ms again."""
    kernel: int = 9
    """Frames that the convolution of a block sees; odd."""
    phones: int = 41
    dropout: float = 0.0
    writer: TransformerConfig | None = None
    """The decoder of letters; its width is that of the blocks."""

    def __post_init__(self) -> None:
        c = self.stack
        if c.vocab or c.causal or c.rope is None or c.windows:
            raise ConjureError("model.stack: expected vocab 0, rope, no windows, and not causal")
        if not self.first > 0 or not self.middle > 0 or self.first + self.middle >= c.layers or self.kernel % 2 == 0:
            raise ConjureError("model: expected first and middle above 0, layers left after them, and an odd kernel")
        w = self.writer
        if w is not None and not (w.causal and w.cross and w.vocab == len(SYMBOLS) and w.dim == c.dim):
            raise ConjureError(f"model.writer: expected a causal decoder that attends across, of {len(SYMBOLS)} "
                               f"symbols and width {c.dim}")  # fmt: skip


def features(samples_N: Tensor) -> Tensor:
    """float32 `[T, M]`, T = 1 + N // 160, of sound at 16 kHz: logarithms of the bands, each with mean 0 over the sound,
    which takes out what microphones and rooms colour."""
    found_MT = log_mel(samples_N, MEL)
    found_MT = torch.maximum(found_MT, found_MT.max() - RANGE)
    found_MT = found_MT - found_MT.mean(1, keepdim=True)
    return (found_MT / found_MT.std().clamp_min(0.1)).T.contiguous()


class EarBlock(nn.Module):
    """x + convolution(norm x) over neighbours, channel by channel, then a transformer's block."""

    def __init__(self, config: EarConfig, layer: int) -> None:
        super().__init__()
        dim = config.stack.dim
        self.norm = RMSNorm(dim)
        self.weight = nn.Parameter(torch.zeros(dim, config.kernel))
        self.weight.adam = True  # type: ignore[attr-defined]  a kernel a channel: no matrix to orthogonalise
        self.block = Block(config.stack, layer)
        self.dropout = config.dropout

    def forward(self, x_BSD: Tensor, context: Context, here_BS1: Tensor) -> Tensor:
        h_BD1S = (self.norm(x_BSD) * here_BS1).mT[:, :, None]  # lies as pictures with channels innermost do
        weight_D11K = self.weight.to(h_BD1S.dtype)[:, None, None]
        D, K = self.weight.shape
        h_BSD = F.conv2d(h_BD1S, weight_D11K, padding=(0, K // 2), groups=D)[:, :, 0].mT
        return self.block(x_BSD + F.dropout(h_BSD, self.dropout, self.training), context)


class Ear(nn.Module):
    """`logits` of letters for every 40 ms; `forward` is the loss."""

    def __init__(self, config: EarConfig) -> None:
        super().__init__()
        self.config, c = config, config.stack
        # In lists, so that their matrices train as those inside the blocks do.
        self.front = nn.ModuleList([Conv1d(MEL.bands, c.dim, 5, 2, padding=2), Conv1d(c.dim, c.dim, 5, 2, padding=2)])
        self.blocks = nn.ModuleList(EarBlock(config, layer) for layer in range(c.layers))
        self.pair = nn.ModuleList([Linear(2 * c.dim, c.dim, bias=False), Linear(c.dim, 2 * c.dim, bias=False)])
        self.norm, self.norm_phones = RMSNorm(c.dim), RMSNorm(c.dim)
        self.letters, self.phones = Linear(c.dim, len(SYMBOLS)), Linear(c.dim, config.phones)
        self._initialise()
        self.writer = None if config.writer is None else Transformer(config.writer)

    @torch.no_grad()
    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, Linear | Conv1d):
                nn.init.normal_(module.weight, 0, module.weight[0].numel() ** -0.5)
                if module.bias is not None:
                    module.bias.zero_()
        for block in self.blocks:
            assert isinstance(block, EarBlock)
            for name, module in block.named_modules():
                if isinstance(module, Linear) and name.split(".")[-1] in ("out", "down"):
                    module.weight.zero_()
        for head in (self.letters, self.phones, self.pair[1]):
            assert isinstance(head, Linear)
            head.weight.zero_()

    def hidden(self, mel_BTM: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(what the first blocks give, what the last ones do, both `[B, S, D]`, how many frames S of each row count).

        `lengths_B` are frames of 10 ms; what is behind them changes nothing.
        """
        x_BTD = mel_BTM
        for convolution in self.front:
            here_BT1 = _here(x_BTD, lengths_B)
            x_BTD = F.silu(convolution((x_BTD * here_BT1).mT)).mT
            lengths_B = (lengths_B + 1) // 2
        if x_BTD.shape[1] % 2:
            x_BTD = F.pad(x_BTD, (0, 0, 0, 1))
        first, middle = self.config.first, self.config.middle
        early_BSD = self._through(self.blocks[:first], x_BTD.contiguous(), lengths_B)
        paired = (early_BSD * _here(early_BSD, lengths_B)).unflatten(1, (-1, 2)).flatten(2)
        coarse = self._through(self.blocks[first : first + middle], self.pair[0](paired), (lengths_B + 1) // 2)
        late_BSD = early_BSD + self.pair[1](coarse).unflatten(2, (2, -1)).flatten(1, 2)
        return early_BSD, self._through(self.blocks[first + middle :], late_BSD, lengths_B), lengths_B

    def heard(self, mel_BTM: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(what the writer attends to `[B, S, D]`, letters by CTC float32 `[B, S, V]`, how many frames S of each row
        count)."""
        _, late_BSD, frames_B = self.hidden(mel_BTM, lengths_B)
        heard_BSD = self.norm(late_BSD)
        return heard_BSD, self.letters(heard_BSD).float(), frames_B

    def logits(self, mel_BTM: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """(letters float32 `[B, S, V]`, how many frames S of each row count)."""
        return self.heard(mel_BTM, lengths_B)[1:]

    def forward(
        self, mel_BTM: Tensor, lengths_B: Tensor, letters_BL: Tensor, counts_B: Tensor, phones_BS: Tensor,
        before_BL: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """(sum of -log p of the texts by CTC, the same by the writer, sum of -log p of the phones; all in nats). Phones
        of -1 are not known. `before_BL` is what the writer is told to have written, the letters unless given."""
        early_BSD, late_BSD, frames_B = self.hidden(mel_BTM, lengths_B)
        heard_BSD = self.norm(late_BSD)
        logp_BSV = self.letters(heard_BSD).float().log_softmax(-1)
        texts = F.ctc_loss(
            logp_BSV.transpose(0, 1), letters_BL, frames_B, counts_B, reduction="sum", zero_infinity=True
        )
        written = texts.new_zeros(())
        if self.writer is not None:
            before_BL, targets_BL = _steps(letters_BL, counts_B, letters_BL if before_BL is None else before_BL)
            here_BS = _here(heard_BSD, frames_B)[..., 0]
            self.writer.compute_dtype = heard_BSD.dtype  # of what letters begin as
            written = self.writer(before_BL, targets=targets_BL, memory=heard_BSD, memory_mask=here_BS)
        known = phones_BS >= 0
        said = self.phones(self.norm_phones(early_BSD[:, : phones_BS.shape[1]][known])).float()
        return texts, written, F.cross_entropy(said, phones_BS[known], reduction="sum")

    def would_write(self, heard_SD: Tensor, texts: Sequence[Sequence[int]]) -> list[float]:
        """log p of each of several texts by the writer, of one sound: what `heard` gives, without padding."""
        if self.writer is None:
            raise ConjureError("this ear has no writer")
        counts_N = torch.tensor([len(ids) for ids in texts])
        letters_NL = nn.utils.rnn.pad_sequence([torch.tensor(ids, dtype=torch.long) for ids in texts], True)
        before_NL, targets_NL = _steps(letters_NL, counts_N, letters_NL)
        self.writer.compute_dtype = heard_SD.dtype
        logits_NLV = self.writer(before_NL, memory=heard_SD.expand(len(texts), -1, -1))
        costs_NL = F.cross_entropy(logits_NLV.mT, targets_NL, ignore_index=IGNORED, reduction="none")
        return (-costs_NL.sum(1)).tolist()

    def flops(self, batch: int, frames: int) -> float:
        """Of one forward pass over rows of so many frames of 10 ms, multiply-adds times two."""
        c, S = self.config.stack, frames / 4
        coarse = [self.config.first <= n < self.config.first + self.config.middle for n in range(c.layers)]
        total = 0.0
        for block, half in zip(self.blocks, coarse, strict=True):
            here = S / 2 if half else S
            total += here * (sum(p.numel() for p in block.parameters()) + 2 * here * c.heads * c.width)
        if self.writer is not None:  # about a letter in 80 ms; keys and values are of every frame
            w, L = self.writer.config, S / 2
            total += L * sum(p.numel() for p in self.writer.parameters()) + (S - L) * w.layers * 2 * w.dim**2
            total += 2 * L * (S + L) * w.layers * w.heads * w.width
        front, ends = list(self.front.parameters()), [*self.pair.parameters(), self.letters.weight, self.phones.weight]
        total += 2 * S * front[0].numel() + S * (front[2].numel() + sum(p.numel() for p in ends))
        return 2.0 * batch * total

    def _through(self, blocks: nn.ModuleList, x_BSD: Tensor, lengths_B: Tensor) -> Tensor:
        rope = self.config.stack.rope
        assert rope is not None
        S = x_BSD.shape[1]
        here_BS1 = _here(x_BSD, lengths_B)
        mask = None if int(lengths_B.min()) >= S else here_BS1[:, None, None, :, 0].bool()
        turn = rope_tables(torch.arange(S, device=x_BSD.device), rope)
        context = Context({False: turn}, {0: mask}, None, None, None, None)
        for block in blocks:
            x_BSD = block(x_BSD, context, here_BS1)
        return x_BSD


def _here(x_BSD: Tensor, lengths_B: Tensor) -> Tensor:
    """1 where a row has a frame, else 0: `[B, S, 1]`."""
    at_S = torch.arange(x_BSD.shape[1], device=x_BSD.device)
    return (at_S < lengths_B[:, None]).to(x_BSD.dtype)[..., None]


def _steps(letters_BL: Tensor, counts_B: Tensor, before_BL: Tensor) -> tuple[Tensor, Tensor]:
    """(what the writer reads, what it writes next): CTC's blank begins a text and ends it."""
    targets_BL = F.pad(letters_BL, (0, 1))
    at_L = torch.arange(targets_BL.shape[1], device=targets_BL.device)
    targets_BL = targets_BL.masked_fill(at_L == counts_B[:, None], 0).masked_fill(at_L > counts_B[:, None], IGNORED)
    return F.pad(before_BL, (1, 0)), targets_BL
