"""Scenes of the pictograms of `tests/data/shapes.py` as models without a book learn from them."""

from __future__ import annotations

from functools import cache

import pytest

from conjure.data.few_scenes import FewScenes, FewScenesData
from conjure.data.scenes import SceneSource
from tests.data.shapes import SIDE, shapes

DATA = FewScenesData(things=18, size=SIDE)


@cache
def few_shapes() -> FewScenes:
    """64 x 64 pixels, all eighteen."""
    source = shapes()
    return FewScenes(SceneSource(source.pictograms, source.pictures, size=SIDE), DATA)


def instead(patch: pytest.MonkeyPatch) -> FewScenes:
    """From now on they are what a recipe's data are."""
    patch.setattr(FewScenes, "load", classmethod(lambda cls, data: few_shapes()))
    return few_shapes()
