"""A tiny painter with random weights over the pictograms of `tests/data/shapes.py`, saved as a model folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conjure.codecs.image_autoencoder import ImageAutoencoderConfig
from conjure.core.seeds import normal
from conjure.data.scenes import SceneSource
from conjure.diffusion.flow import RectifiedFlow
from conjure.models.dit import DiTConfig
from conjure.models.painter import PainterConfig
from conjure.models.picture_book import PictureBookConfig
from conjure.models.picture_text import PictureTextConfig
from conjure.tasks import image_to_image
from conjure.tasks.image_to_image import CodecData, Reconstruct
from conjure.tasks.text_to_image import CaptionData, TextToImage
from tests.data.handwriting import write_mnist
from tests.data.shapes import SIDE, shapes, vocabulary

MODEL = PainterConfig(
    text=PictureTextConfig(vocab=len(vocabulary().vocabulary), length=14, dim=16, layers=1, heads=2),
    book=PictureBookConfig(pages=len(shapes().pictograms), channels=4, side=8, points=2),
    dit=DiTConfig(channels=4, size=8, patch=2, dim=16, layers=1, heads=2, hidden=32),
    flow=RectifiedFlow(predict="sample", floor=0.2),
)
DIGITS = PainterConfig(
    text=PictureTextConfig(vocab=15, length=3, dim=16, layers=1, heads=2),
    dit=DiTConfig(channels=1, size=28, patch=7, dim=16, layers=1, heads=2, hidden=32),
)


def painter(folder: Path) -> Path:
    """The folder of a painter of 64 x 64 pixels with a codec that is no more than principal components."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SceneSource, "load", classmethod(lambda cls, size=SIDE: shapes()))
        patch.setattr(image_to_image, "MEASURED", 16)
        config = ImageAutoencoderConfig(latent_channels=4, width=8, fine_width=4)
        Reconstruct.create(config, CodecData(size=SIDE)).save(folder / "codec")
        _saved(replace(MODEL, codec=str(folder / "codec")), CaptionData(size=SIDE), folder / "painter")
    return folder / "painter"


def digits(folder: Path) -> Path:
    """The folder of a painter of digits, 28 x 28 grey pixels without a codec."""
    write_mnist(folder / "mnist", 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONJURE_DATA", str(folder))
        _saved(DIGITS, CaptionData(source="digits"), folder / "digits")
    return folder / "digits"


def _saved(config: PainterConfig, data: CaptionData, folder: Path) -> None:
    task = TextToImage.create(config, data)
    with torch.no_grad():
        for k, parameter in enumerate(task.network.parameters()):
            parameter.copy_(0.2 * normal([k], parameter.shape)[0])
    task.save(folder)
