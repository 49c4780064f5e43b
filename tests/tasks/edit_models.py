"""Scenes of 128 pixels over the pictograms of `tests/data/shapes.py`, a tiny painter of them, and a tiny editor."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from conjure.codecs.image_autoencoder import ImageAutoencoderConfig
from conjure.core.seeds import normal
from conjure.data.captions import COLOUR_NUMBERS
from conjure.data.scene_edits import EditSource
from conjure.data.scenes import SceneSource
from conjure.diffusion.flow import RectifiedFlow
from conjure.models.dit import DiTConfig
from conjure.models.editor import EditorConfig, PlannerConfig
from conjure.models.painter import PainterConfig
from conjure.models.picture_book import PictureBookConfig
from conjure.models.picture_text import PictureTextConfig
from conjure.tasks import image_to_image
from conjure.tasks.edit_drafts import GROUNDS
from conjure.tasks.image_to_image import CodecData, Reconstruct
from conjure.tasks.instruct import EditData, Instruct
from conjure.tasks.text_to_image import CaptionData, TextToImage
from tests.data.shapes import shapes, vocabulary

SIDE = 128
DIT = DiTConfig(channels=4, size=16, patch=4, dim=16, layers=1, heads=2, hidden=32)
PAINTER = PainterConfig(
    text=PictureTextConfig(vocab=len(vocabulary().vocabulary), length=24, dim=16, layers=1, heads=2),
    book=PictureBookConfig(pages=len(shapes().pictograms), channels=4, side=16, points=2),
    dit=DIT,
    flow=RectifiedFlow(predict="sample", floor=0.2),
)
WORDS = 80


@cache
def scenes() -> SceneSource:
    return SceneSource(shapes().pictograms, shapes().pictures.repeat(2, 1).repeat(2, 2), size=SIDE)


def edits() -> EditSource:
    return EditSource(scenes())


def painter(folder: Path) -> str:
    """The folder of a painter with random weights and a codec that is no more than principal components."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SceneSource, "load", classmethod(lambda cls, size=SIDE: scenes()))
        patch.setattr(image_to_image, "MEASURED", 16)
        config = ImageAutoencoderConfig(latent_channels=4, width=8, fine_width=4)
        Reconstruct.create(config, CodecData(size=SIDE)).save(folder / "codec")
        model = PainterConfig(text=PAINTER.text, book=PAINTER.book, dit=DIT, flow=PAINTER.flow,
                              codec=str(folder / "codec"))  # fmt: skip
        task = TextToImage.create(model, CaptionData(size=SIDE))
        with torch.no_grad():
            for k, parameter in enumerate(task.network.parameters()):
                parameter.copy_(0.2 * normal([k], parameter.shape)[0])
        task.save(folder / "painter")
    return str(folder / "painter")


def config(painter: str) -> EditorConfig:
    planner = PlannerConfig(vocab=WORDS, length=16, channels=4, size=16, patch=4, dim=16, layers=1, heads=2, keys=4,
                            colours=len(COLOUR_NUMBERS), grounds=len(GROUNDS))  # fmt: skip
    return EditorConfig(painter=painter, planner=planner, dit=DIT, flow=PAINTER.flow)


def created(painter: str) -> Instruct:
    """A new editor; `SceneSource.load` must give `scenes` for it."""
    return Instruct.create(config(painter), EditData(size=SIDE))
