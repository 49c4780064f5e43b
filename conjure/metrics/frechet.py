"""Frechet distance between two sets of features: FID, where the features are Inception's.

Heusel et al. 2017 (arXiv 1706.08500): each set is taken for a Gaussian, and

    d^2 = |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2)).

The last trace is the sum of the singular values of C1^(1/2) C2^(1/2), with both roots from symmetric eigenvectors in
float64. So nothing imaginary arises where a covariance is singular, and equal sets are at distance 0.

The value is biased upwards, by about a constant over n (Chong and Forsyth 2020, arXiv 1911.07023): only values with the
same n and the same features compare.

Legend: N pictures, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conjure.metrics.measured import Measured, checked, resampled

RESAMPLES = {256: 100, 1 << 30: 20}
"""Most features -> resamples: a root of 2,048 features takes seconds."""


@dataclass(frozen=True)
class Gaussian:
    """Mean [F] and covariance [F, F], unbiased, of N features, float64."""

    mean_F: np.ndarray
    covariance_FF: np.ndarray


def gaussian(features_NF: np.ndarray) -> Gaussian:
    """Mean and covariance of at least two rows."""
    mean_F = features_NF.mean(0, dtype=np.float64)
    centred_NF = features_NF - mean_F
    return Gaussian(mean_F, centred_NF.T @ centred_NF / (len(features_NF) - 1))


def distance(a: Gaussian, b: Gaussian) -> float:
    """The squared Frechet distance between two Gaussians, at least 0."""
    shared = np.linalg.svd(_root(a.covariance_FF) @ _root(b.covariance_FF), compute_uv=False).sum()
    apart = ((a.mean_F - b.mean_F) ** 2).sum()
    return max(0.0, float(apart + np.trace(a.covariance_FF) + np.trace(b.covariance_FF) - 2 * shared))


def frechet_distance(
    made_NF: np.ndarray, real_NF: np.ndarray, *, seed: int = 0, resamples: int | None = None
) -> Measured:
    """The distance between generated and real features, with a bootstrap interval over both.

    Samples drawn with replacement are further apart than the sets they come from: by how much, on average, estimates
    the bias, which is stated and not subtracted. The interval is the spread of those distances, put around the value.
    """
    made_NF, real_NF = checked(made_NF, real_NF)
    if resamples is None:
        resamples = next(count for most, count in RESAMPLES.items() if made_NF.shape[1] <= most)
    value = distance(gaussian(made_NF), gaussian(real_NF))

    def measure(made: np.ndarray, real: np.ndarray) -> float:
        return distance(gaussian(made_NF[made]), gaussian(real_NF[real]))

    drawn = resampled(measure, (len(made_NF), len(real_NF)), seed=seed, resamples=resamples)
    low, high = value + np.quantile(drawn, (0.025, 0.975)) - drawn.mean()
    n, features = min(len(made_NF), len(real_NF)), made_NF.shape[1]
    warnings = ()
    if n <= features:
        warnings = (f"n = {n} for {features} features: the covariance is singular and the value mostly bias, use KID",)
    return Measured(
        value=value,
        low=max(0.0, float(low)),
        high=float(high),
        n=len(made_NF),
        protocol=(
            f"Frechet distance, n = {len(made_NF):,} against {len(real_NF):,}, 95 % bootstrap interval "
            f"({resamples} resamples); of the value, bias of small n is about {drawn.mean() - value:.3g}"
        ),
        warnings=warnings,
    )


def _root(covariance_FF: np.ndarray) -> np.ndarray:
    """The symmetric square root; eigenvalues that rounding made negative count as 0."""
    values_F, vectors_FF = np.linalg.eigh(covariance_FF)
    return (vectors_FF * np.sqrt(values_F.clip(0))) @ vectors_FF.T
