"""How public models that read waves want them: `preprocessor_config.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from conjure.codecs.log_mel import levelled
from conjure.codecs.voice_activity import Floats
from conjure.core.errors import ConjureError
from conjure.core.json_files import read_json


@dataclass(frozen=True)
class WaveInput:
    """`level` brings waves to mean 0 and variance 1; `hides` says whether rows of different length come with a mask,
    null where the file does not say."""

    rate: int = 16_000
    level: bool = True
    hides: bool | None = None

    @classmethod
    def of(cls, folder: Path, *, level: bool) -> WaveInput:
        """What a folder says; `level` where it does not say. A rate that is none is a `ConjureError`."""
        path = folder / "preprocessor_config.json"
        said = read_json(path)
        rate, hides = said.get("sampling_rate", 16_000), said.get("return_attention_mask")
        if type(rate) is not int or rate < 1:
            raise ConjureError(f"{path}: sampling_rate: expected a number of Hz, got {rate!r}")
        return cls(rate, bool(said.get("do_normalize", level)), None if hides is None else bool(hides))

    def row(self, samples_N: Floats) -> Tensor:
        """One sound as the model reads it, `[1, N]`."""
        samples_1N = torch.from_numpy(samples_N)[None]
        return levelled(samples_1N) if self.level else samples_1N
