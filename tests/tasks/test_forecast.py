"""What `--plan` foretells follows from the config alone and grows with the work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conjure.core.config import to_dict
from conjure.models.dit import DiT, DiTConfig
from conjure.models.transformer import TransformerConfig
from conjure.tasks import scene_painter, text_to_text
from conjure.tasks.text_to_image import PainterConfig, TextToImage, TextToImageOptions
from conjure.tasks.text_to_text import TextData, TextToText, TextToTextOptions


def folder(path: Path, **sections: object) -> Path:
    (path / "config.json").write_text(json.dumps({"format": 1, **sections}))
    return path


def test_text_reads_every_weight_once_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_to_text, "read_rate", lambda: 4e6)
    model = TransformerConfig(vocab=300, dim=32, layers=3, heads=2)
    place = folder(tmp_path, parameters=1_000_000, model=to_dict(model), data=to_dict(TextData(length=64)))
    told = TextToText.forecast(place, TextToTextOptions(tokens=50), count=2)
    assert told == {"memory_bytes": 4 * 2 * 2 * 3 * 32 * 50, "seconds": 50.0}


def test_pictures_count_the_evaluations_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene_painter, "matmul_rate", lambda: 1e9)
    model = PainterConfig(dit=DiTConfig(channels=3, size=8, patch=2, dim=192, layers=1, heads=3, hidden=64))
    place = folder(tmp_path, model=to_dict(model))
    once = DiT(model.dit).flops(2, model.text.length) / 1e9
    for options, evaluations in (
        (TextToImageOptions(steps=12), 12),
        (TextToImageOptions(steps=12, guidance=3), 24),
        (TextToImageOptions(steps=12, sampler="heun"), 23),
    ):
        told = TextToImage.forecast(place, options, count=2)
        assert told["evaluations"] == evaluations
        assert told["seconds"] == pytest.approx(evaluations * once)
        assert told["memory_bytes"] > 0
