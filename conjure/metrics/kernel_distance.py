"""Kernel distance between two sets of features: KID, which small sets do not bias.

Binkowski et al. 2018 (arXiv 1801.01401): the squared maximum mean discrepancy with the kernel (x.y / F + 1)^3, by its
unbiased estimator (Gretton et al. 2012, JMLR 13, eq. 3). Its expectation is 0 where both sets have one distribution,
so it may come out negative.

The sets are cut into blocks, and the value is the mean over blocks, each of which is unbiased alone (Zaremba et al.
2013, arXiv 1307.1954). The blocks share no picture, so their spread gives an honest standard error; pictures drawn with
replacement would not, because a picture and its copy count as alike.

Legend: N pictures, F features, M pictures of a block.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from conjure.core.seeds import derive, rng
from conjure.metrics.confidence import bootstrap_mean
from conjure.metrics.measured import Measured, checked

BLOCK = 1000  # pictures at most, as the paper has them
BLOCKS = 10  # at least, where there are enough pictures
SMALLEST = 2


def discrepancy(made_MF: np.ndarray, real_MF: np.ndarray) -> float:
    """The unbiased estimate of the squared discrepancy, for two rows or more on either side."""
    m, n = len(made_MF), len(real_MF)
    made_MM, real_MM, both_MM = kernel(made_MF, made_MF), kernel(real_MF, real_MF), kernel(made_MF, real_MF)
    own = (made_MM.sum() - np.trace(made_MM)) / (m * (m - 1)) + (real_MM.sum() - np.trace(real_MM)) / (n * (n - 1))
    return float(own - 2 * both_MM.mean())


def kernel(a_NF: np.ndarray, b_MF: np.ndarray) -> np.ndarray:
    """(a.b / F + 1)^3: [N, M]"""
    one_NM = a_NF @ b_MF.T / a_NF.shape[1] + 1
    return one_NM * one_NM * one_NM


def kernel_distance(made_NF: np.ndarray, real_NF: np.ndarray, *, seed: int = 0, block: int = BLOCK) -> Measured:
    """KID with the standard error over its blocks, and a bootstrap interval over them.

    Not multiplied by anything: published values often are, by 100 or 1,000.
    """
    made_NF, real_NF = checked(made_NF, real_NF)
    fewest = min(len(made_NF), len(real_NF))
    size = max(SMALLEST, min(block, fewest // BLOCKS))
    count = fewest // size
    made, real = (
        rng(derive(seed, name)).permutation(len(rows)) for name, rows in (("made", made_NF), ("real", real_NF))
    )
    values = [
        discrepancy(made_NF[made[k * size : (k + 1) * size]], real_NF[real[k * size : (k + 1) * size]])
        for k in range(count)
    ]
    value, low, high = bootstrap_mean(values, seed=seed)
    error = float(np.std(values, ddof=1)) / sqrt(count)
    return Measured(
        value=value,
        low=low,
        high=high,
        n=len(made_NF),
        protocol=(
            f"kernel distance (cubic, unbiased), n = {len(made_NF):,} against {len(real_NF):,}, mean of {count} "
            f"blocks of {size}, standard error {error:.3g}, 95 % bootstrap interval over blocks"
        ),
        warnings=(f"blocks of {size} pictures: the interval is wide",) if size < 50 else (),
    )
