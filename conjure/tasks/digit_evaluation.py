"""The measure of a model that draws digits: are they the digits that were asked for?

Each of the ten digits is asked for by name, several times. A picture counts where the handwritten digit that it is
nearest to (L2 on pixels), among 10,000 of MNIST's training set, is the one that was asked for. That judge is not
perfect: how often it is right about real digits of the test set is stated beside the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from conjure.core.events import Event, Progress
from conjure.core.seeds import derive
from conjure.data.digits import NAMES, DigitSource
from conjure.media.image import Image
from conjure.metrics.confidence import wilson
from conjure.metrics.template_search import nearest

Draw = Callable[[Sequence[str], Sequence[int]], list[Image]]
KNOWN = 10_000
EACH = 20  # pictures of each digit


def recognised(
    draw: Draw, *, each: int = EACH, tell: Callable[[Event], None] | None = None
) -> dict[str, object]:
    """The share of pictures that are taken for what they should show, with its 95 % Wilson interval.

    `draw(prompts, seeds)` makes the pictures, grey, white on black, 28 x 28.
    """
    known_NHW, labels_N = DigitSource("train").batch(range(KNOWN))
    right = 0
    for digit, name in enumerate(NAMES):
        pictures = draw([name] * each, [derive(0, "digit", digit, k) for k in range(each)])
        drawn_BHW = np.stack([picture.pixels[..., 0] for picture in pictures])
        right += int((labels_N[nearest(drawn_BHW, known_NHW)] == digit).sum())
        if tell:
            tell(Progress((digit + 1) * each, len(NAMES) * each, "picture", "recognised"))
    real_BHW, real_B = DigitSource("test").batch(range(1000))
    judge = float((labels_N[nearest(real_BHW, known_NHW)] == real_B).mean())
    value, low, high = wilson(right, len(NAMES) * each)
    return {
        "value": value, "low": low, "high": high, "n": len(NAMES) * each,
        "protocol": f"label of the nearest (L2) of {KNOWN:,} MNIST training digits, which is right for "
                    f"{judge:.1%} of 1,000 real test digits",
    }  # fmt: skip
