"""EnCodec and DAC as the hub has them: what config.json says, and where the tensors lie.

Weights are read as they are, as length and direction (`weight_g`, `weight_v`), and by torch's newer names for these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.models.checkpoint import Tensors
from conjure.models.dac import DAC, DILATIONS, DACConfig
from conjure.models.encodec import Encodec, EncodecConfig
from conjure.models.public.family import Family
from conjure.models.public.names import Map
from conjure.models.public.settings import Settings
from conjure.models.public.weight_norm import Folded

NORMS = {"weight_norm": "none", "time_group_norm": "group"}
"""norm_type -> what is left of it once weights are folded."""
PADDINGS = ("reflect", "constant", "replicate")
ORIGINAL = (
    (re.compile(r"\.model\.(\d+)\."), r".layers.\1."), (re.compile(r"\.(conv|convtr)\.\1\."), ".conv."),
    (re.compile(r"\.conv\.norm\."), ".norm."), (re.compile(r"quantizer\.vq\."), "quantizer."),
    (re.compile(r"\._codebook\."), ".codebook."),
)  # fmt: skip
"""Names of the first files of EnCodec -> those of the hub."""


def encodec(s: Settings) -> EncodecConfig:
    norm, padding = s.get("norm_type", default="weight_norm"), s.get("pad_mode", default="reflect")
    if norm not in NORMS or padding not in PADDINGS:
        raise ConjureError(f"config.json: cannot run norm_type {norm!r} with pad_mode {padding!r}",
                           hint=f"known are {', '.join(NORMS)}, and {', '.join(PADDINGS)}")  # fmt: skip
    ratios, rate, codes = _ratios(s, "upsampling_ratios"), s.integer("sampling_rate"), s.integer("codebook_size")
    dim = s.integer("hidden_size")
    if s.integer("codebook_dim", default=dim) != dim:
        raise ConjureError(f"config.json: expected codebook_dim {dim} as hidden_size, got {s.get('codebook_dim')}")
    widest = s.get("target_bandwidths")
    if not isinstance(widest, list | tuple) or not widest or not isinstance(widest[-1], int | float):
        raise ConjureError(f"config.json: target_bandwidths: expected numbers, got {widest!r}")
    each = math.ceil(rate / math.prod(ratios)) * math.ceil(math.log2(codes))
    return EncodecConfig(
        rate=rate, channels=s.integer("audio_channels"), filters=s.integer("num_filters"), ratios=ratios,
        residuals=s.integer("num_residual_layers", least=0), kernel=s.integer("kernel_size"),
        last_kernel=s.integer("last_kernel_size"), residual_kernel=s.integer("residual_kernel_size"),
        growth=s.integer("dilation_growth_rate"), compress=s.integer("compress"),
        shortcut=s.flag("use_conv_shortcut", default=True), lstm=s.integer("num_lstm_layers", least=0), dim=dim,
        books=max(1, int(1000 * widest[-1] // each)), codes=codes, causal=s.flag("use_causal_conv", default=True),
        trim=s.number("trim_right_ratio", default=1.0), padding=padding,
        norm=NORMS[norm], normalise=s.flag("normalize", default=False),  # type: ignore[arg-type]
        part=int(s.number("chunk_length_s", default=0.0) * rate), overlap=s.number("overlap", default=0.0),
    )  # fmt: skip


def dac(s: Settings) -> DACConfig:
    ratios, width = _ratios(s, "downsampling_ratios"), s.integer("encoder_hidden_size")
    if (back := _ratios(s, "upsampling_ratios", ratios[::-1])) != ratios[::-1]:
        raise ConjureError(f"config.json: expected upsampling_ratios {ratios[::-1]}, got {back}")
    return DACConfig(
        rate=s.integer("sampling_rate"), width_in=width, width_out=s.integer("decoder_hidden_size"), ratios=ratios,
        dim=s.integer("hidden_size", default=width * 2 ** len(ratios)), books=s.integer("n_codebooks"),
        codes=s.integer("codebook_size"), code_dim=s.integer("codebook_dim"),
    )  # fmt: skip


def _ratios(s: Settings, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
    found = s.get(name, default=default)
    if not isinstance(found, list | tuple) or not found or any(type(each) is not int or each < 1 for each in found):
        raise ConjureError(f"config.json: {name}: expected whole numbers above 0, got {found!r}")
    return tuple(found)


def encodec_names(c: EncodecConfig) -> Map:
    names: Map = {"quantiser.books.{i}.codes_CD": "quantizer.layers.{i}.codebook.embed",
                  "quantiser.books.{i}.counts_C": "quantizer.layers.{i}.codebook.cluster_size"}  # fmt: skip
    parts = {"": "", "first.": "block.1.", "second.": "block.3.", "shortcut.": "shortcut."}
    for half in ("encoder", "decoder"):
        names[f"{half}.{{i}}.lstm"] = f"{half}.layers.{{i}}.lstm"
        for ours, there in parts.items():
            for layer in ("conv", "norm"):
                names[f"{half}.{{i}}.{ours}{layer}"] = f"{half}.layers.{{i}}.{there}{layer}"
    return names


def dac_names(c: DACConfig) -> Map:
    names: Map = {f"quantiser.books.{{i}}.{ours}": f"quantizer.quantizers.{{i}}.{there}"
                  for ours, there in {"down": "in_proj", "up": "out_proj", "codes": "codebook"}.items()}  # fmt: skip
    size = 2 + len(DILATIONS)
    for block in range(len(c.ratios)):
        down, up = 1 + block * size, 1 + block * size
        for unit in range(len(DILATIONS)):
            for half, at in (("encoder", down + unit), ("decoder", up + 2 + unit)):
                for place, there in enumerate(("snake1", "conv1", "snake2", "conv2")):
                    names[f"{half}.{at}.layers.{place}"] = f"{half}.block.{block}.res_unit{unit + 1}.{there}"
        names |= {f"encoder.{down + size - 2}": f"encoder.block.{block}.snake1",
                  f"encoder.{down + size - 1}": f"encoder.block.{block}.conv1",
                  f"decoder.{up}": f"decoder.block.{block}.snake1",
                  f"decoder.{up + 1}": f"decoder.block.{block}.conv_t1"}  # fmt: skip
    last = 1 + len(c.ratios) * size
    for half in ("encoder", "decoder"):
        for place, there in ((0, "conv1"), (last, "snake1"), (last + 1, "conv2")):
            names[f"{half}.{place}"] = f"{half}.{there}"
    return names


class Renamed:
    """The tensors of a file of EnCodec by the names of the hub, whichever it has."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors, self._there = tensors, {}
        for name in tensors.names():
            new = name
            for pattern, by in ORIGINAL:
                new = pattern.sub(by, new)
            self._there[new] = name

    def names(self) -> Sequence[str]:
        return sorted(self._there)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors.shape(self._there[name])

    def tensor(self, name: str) -> Tensor:
        return self._tensors.tensor(self._there[name])


ENCODEC = {"target_bandwidths": [1.5, 3.0, 6.0, 12.0, 24.0], "sampling_rate": 24_000, "audio_channels": 1,
           "hidden_size": 128, "num_filters": 32, "num_residual_layers": 1, "upsampling_ratios": [8, 5, 4, 2],
           "kernel_size": 7, "last_kernel_size": 7, "residual_kernel_size": 3, "dilation_growth_rate": 2, "compress": 2,
           "num_lstm_layers": 2, "codebook_size": 1024}  # fmt: skip
DESCRIPT = {"encoder_hidden_size": 64, "downsampling_ratios": [2, 4, 8, 8], "decoder_hidden_size": 1536,
            "n_codebooks": 9, "codebook_size": 1024, "codebook_dim": 8, "sampling_rate": 16_000}  # fmt: skip
FAMILIES = {
    "encodec": Family(
        encodec, encodec_names, network=Encodec, defaults=ENCODEC, kind="sound_codec",
        ignore=("quantizer.layers.*.codebook.embed_avg", "quantizer.layers.*.codebook.inited"),
        opened=lambda tensors: Folded(Renamed(tensors)),
    ),
    "dac": Family(dac, dac_names, network=DAC, defaults=DESCRIPT, kind="sound_codec", opened=Folded),
}  # fmt: skip
