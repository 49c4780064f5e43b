"""`scheduler_config.json`, the file beside a published diffusion model that says how it was trained and is sampled.

The names of the settings are the file's own (the layout of diffusers). A setting that the file leaves out has the
default of the sampler's class, which differs from class to class; the same holds where another sampler is asked for
than the file's, so that it starts from what `OtherScheduler.from_config(file)` gives elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from conjure.core.errors import ConjureError, suggest

PREDICTIONS = {
    "epsilon": "epsilon",
    "v_prediction": "v",
    "sample": "sample",
    "original_sample": "sample",
    "flow_prediction": "flow",
}


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """What a schedule depends on, under the file's names."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    rescale_betas_zero_snr: bool = False
    prediction_type: str = "epsilon"
    timestep_spacing: str = "linspace"
    timestep_type: str = "discrete"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    variance_type: str | None = None
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    sigma_min: float | None = None
    sigma_max: float | None = None
    final_sigmas_type: str = "zero"
    solver_order: int = 2
    solver_type: str = ""
    algorithm_type: str = "dpmsolver++"
    lower_order_final: bool = True
    euler_at_final: bool = False
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0
    flow_match: bool = False
    """Whether the file's class is one of flow matching; no key of files."""
    use_flow_sigmas: bool = False
    flow_shift: float = 1.0
    shift: float = 1.0
    use_dynamic_shifting: bool = False
    time_shift_type: str = "exponential"
    base_shift: float = 0.5
    max_shift: float = 1.15
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    shift_terminal: float | None = None
    stochastic_sampling: bool = False

    def __post_init__(self) -> None:
        if self.prediction_type not in PREDICTIONS:
            raise ConjureError(
                f"unknown prediction_type '{self.prediction_type}' in the scheduler's config",
                hint=suggest(self.prediction_type, PREDICTIONS),
            )
        if self.num_train_timesteps < 1 or self.solver_order < 1 or self.original_inference_steps < 1:
            raise ConjureError("num_train_timesteps, solver_order and original_inference_steps must be 1 or more")
        if self.use_karras_sigmas and self.use_exponential_sigmas:
            raise ConjureError("a schedule uses Karras' levels or exponential ones, not both")
        if self.final_sigmas_type not in ("zero", "sigma_min"):
            raise ConjureError(f"final_sigmas_type must be zero or sigma_min, got '{self.final_sigmas_type}'")

    @property
    def predicts(self) -> str:
        """epsilon, v, sample or flow."""
        return PREDICTIONS[self.prediction_type]

    @property
    def clip(self) -> float:
        """Bound of the estimated data; infinite where it has none."""
        return self.clip_sample_range if self.clip_sample else math.inf


_CHAIN = {"timestep_spacing": "leading", "clip_sample": True}
_LATENT = {"beta_start": 0.00085, "beta_end": 0.012}
_FLOW = {"prediction_type": "flow_prediction", "flow_match": True}
DEFAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "DDPMScheduler": ("ddpm", {**_CHAIN, "variance_type": "fixed_small"}),
    "DDIMScheduler": ("ddim", _CHAIN),
    "PNDMScheduler": ("pndm", {"timestep_spacing": "leading", "set_alpha_to_one": False}),
    "EulerDiscreteScheduler": ("euler", {}),
    "EulerAncestralDiscreteScheduler": ("euler_ancestral", {}),
    "HeunDiscreteScheduler": ("heun", _LATENT),
    "LMSDiscreteScheduler": ("lms", {}),
    "DPMSolverMultistepScheduler": ("dpmpp_2m", {"solver_type": "midpoint"}),
    "UniPCMultistepScheduler": ("unipc", {"solver_type": "bh2"}),
    "LCMScheduler": ("lcm", {**_LATENT, "beta_schedule": "scaled_linear", "timestep_spacing": "leading"}),
    "FlowMatchEulerDiscreteScheduler": ("euler", _FLOW),
    "FlowMatchHeunDiscreteScheduler": ("heun", _FLOW),
}
"""Class in the file -> its sampler here, and the defaults in which it differs from those above."""

_LEVELS = ("use_karras_sigmas", "use_exponential_sigmas", "final_sigmas_type", "sigma_min", "sigma_max")
_UNKNOWN: dict[str, tuple[str, ...]] = {
    "euler": ("clip_sample",),
    "euler_ancestral": ("clip_sample", *_LEVELS),
    "heun": ("final_sigmas_type", "sigma_min", "sigma_max"),
    "lms": ("clip_sample", "final_sigmas_type", "sigma_min", "sigma_max"),
    "pndm": ("clip_sample", *_LEVELS),
    "ddim": _LEVELS,
    "ddpm": _LEVELS,
    "lcm": _LEVELS,
    "dpmpp_2m": ("clip_sample", "sigma_min", "sigma_max"),
    "dpmpp_2m_sde": ("clip_sample", "sigma_min", "sigma_max"),
    "unipc": ("clip_sample",),
}
"""Sampler -> the file's settings that its class does not know and passes over."""

_REFUSED: dict[str, tuple[Any, ...]] = {
    "thresholding": (False, None),
    "trained_betas": (None,),
    "use_beta_sigmas": (False, None),
    "use_lu_lambdas": (False, None),
    "invert_sigmas": (False, None),
    "predict_x0": (True,),
    "disable_corrector": ([], (), None),
    "solver_p": (None,),
    "interpolation_type": ("linear",),
    "lambda_min_clipped": (-math.inf, None),
}
"""Settings that are not built -> the values with which they do nothing."""


def read_scheduler_config(file: Mapping[str, Any], sampler: str = "") -> tuple[str, SchedulerConfig]:
    """The file's settings for a sampler (canonical name; "" is the file's own) -> (sampler, config)."""
    name = str(file.get("_class_name", ""))
    if name not in DEFAULTS:
        raise ConjureError(
            f"the scheduler class '{name}' is not known" if name else "the scheduler's config names no _class_name",
            hint=suggest(name, DEFAULTS),
        )
    for key, harmless in _REFUSED.items():
        if key in file and file[key] not in harmless:
            raise ConjureError(
                f"the scheduler's config asks for {key} = {file[key]!r}, which is not built",
                hint=f"set it to {harmless[0]!r} in scheduler_config.json, at the cost of other pictures",
            )
    own, defaults = DEFAULTS[name]
    if own == "dpmpp_2m" and str(file.get("algorithm_type", "")).startswith("sde-"):
        own = "dpmpp_2m_sde"
    if own == "euler" and file.get("stochastic_sampling"):
        own = "lcm"
    asked = sampler or own
    if asked != own and not (defaults.get("flow_match") or file.get("use_flow_sigmas")):
        _, defaults = DEFAULTS[_class_of(asked)]
    known = {field.name for field in fields(SchedulerConfig)}
    given = {key: value for key, value in file.items() if key in known and key not in _UNKNOWN.get(asked, ())}
    config = SchedulerConfig(**{**defaults, **given, **_forced(asked, own)})
    _check(asked, config, file)
    return asked, config


def _forced(asked: str, own: str) -> dict[str, Any]:
    """Another solver than the file's does not take over what was said of the file's."""
    if asked == own:
        return {}
    kinds = {"dpmpp_2m": "midpoint", "dpmpp_2m_sde": "midpoint", "unipc": "bh2"}
    return {"solver_type": kinds.get(asked, ""), "algorithm_type": "dpmsolver++", "solver_order": 2}


def _class_of(sampler: str) -> str:
    plain = "dpmpp_2m" if sampler == "dpmpp_2m_sde" else sampler
    return next(name for name, (own, _) in DEFAULTS.items() if own == plain)


def _check(sampler: str, config: SchedulerConfig, file: Mapping[str, Any]) -> None:
    """What the solvers can do with the settings."""
    built: dict[str, dict[str, tuple[Any, ...]]] = {
        "dpmpp_2m": {"solver_order": (1, 2), "solver_type": ("midpoint",), "algorithm_type": ("dpmsolver++", "deis")},
        "dpmpp_2m_sde": {"solver_order": (1, 2), "solver_type": ("midpoint",)},
        "unipc": {"solver_type": ("bh1", "bh2"), "solver_order": (1, 2, 3)},
        "ddpm": {"variance_type": ("fixed_small", "fixed_large", None)},
    }
    for key, values in built.get(sampler, {}).items():
        if getattr(config, key) not in values:
            raise ConjureError(
                f"{key} = {getattr(config, key)!r} is not built for the sampler {sampler}",
                hint="choose another sampler (--sampler); 'conjure list samplers' shows them",
            )
    if sampler == "dpmpp_2m_sde" and config.algorithm_type == "sde-dpmsolver":
        raise ConjureError("algorithm_type = 'sde-dpmsolver' is not built", hint="choose --sampler dpmpp_2m_sde")
    if sampler == "pndm" and file.get("_class_name") == "PNDMScheduler" and not file.get("skip_prk_steps"):
        raise ConjureError(
            "PNDM with Runge-Kutta steps at its start (skip_prk_steps = false) is not built",
            hint="choose --sampler ddim or --sampler unipc, or set skip_prk_steps to true",
        )
