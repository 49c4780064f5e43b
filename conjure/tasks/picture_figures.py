"""How near made pictures are to test pictures of the same set: four figures by one protocol, so that systems compare.

Shape: N pictures, made and real alike, uint8 `[N, H, W, C]`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.shelf import find
from conjure.data.pictures_small import SmallPictures, SmallSet
from conjure.metrics.frechet import frechet_distance
from conjure.metrics.kernel_distance import kernel_distance
from conjure.metrics.manifold import precision, recall
from conjure.models.features import Extractor, load_extractor

COUNT = 2000
"""Made pictures, and test pictures: values with another n do not compare."""
JUDGES: dict[SmallSet, str] = {
    "mnist": "starter/features-mnist",
    "cifar10": "runs/features-cifar",
    "cifar10_jpeg": "runs/features-cifar",
}
"""Whose features they are; those of CIFAR-10 may not be shipped, so its network is trained first."""


def judge(name: SmallSet) -> Extractor:
    """The feature network of a set; `ConjureError` where it is not on this machine."""
    place = JUDGES[name]
    if not place.startswith("starter/") and not Path(place).is_dir():
        raise ConjureError(f"figures of {name} need the features of {place}, which is not there",
                           hint=f"conjure train {Path(place).name}")
    return load_extractor(find(place))


def spread(source: SmallPictures, count: int) -> np.ndarray:
    """At most `count` pictures from evenly over a split: uint8 `[N, H, W, C]`."""
    places = np.arange(min(count, len(source))) * len(source) // min(count, len(source))
    return source.pixels_NHWC[places]


def picture_figures(made_NHWC: np.ndarray, name: SmallSet) -> dict[str, dict[str, Any]]:
    """Frechet and kernel distance to as many test pictures, precision and recall."""
    extractor = judge(name)
    made, real = extractor(made_NHWC), extractor(spread(SmallPictures(name, "test"), len(made_NHWC)))
    measures = {"frechet_distance": frechet_distance, "kernel_distance": kernel_distance,
                "precision": precision, "recall": recall}
    return {what: measure(made, real).figure(extractor.protocol) for what, measure in measures.items()}
