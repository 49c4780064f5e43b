"""The samplers by name, in every dialect, for listings that must not wait for torch; `samplers.py` holds them."""

from __future__ import annotations

import re

from conjure.core.errors import ConjureError, nearest

SAMPLER_NAMES: dict[str, str] = {
    "euler": "straight steps along the ODE, one evaluation each; the plainest, and what flow models are made for",
    "heun": "second order, each step tried and corrected; two evaluations a step",
    "dpmpp_2m": "DPM-Solver++(2M), second order from the memory of the last step, one evaluation a step; "
    "the usual choice for 20 steps",
    "unipc": "second order, each evaluation also corrects the step before; made for few steps",
    "lms": "fourth-order memory of slopes, one evaluation a step; wants 30 steps and more",
    "pndm": "fourth-order memory of slopes with weights of even steps; what Stable Diffusion 1 was shown with",
    "ddim": "takes the picture apart into data and noise at every step; pictures of old recipes come out the same",
    "euler_ancestral": "takes noise away and adds fresh noise at every step; more varied, does not converge",
    "dpmpp_2m_sde": "DPM-Solver++(2M) with fresh noise at every step; fine detail from 25 steps on, does not converge",
    "ddpm": "the reverse of the training's chain, fresh noise at every step; wants hundreds of steps",
    "lcm": "jumps to the end and adds fresh noise; for models distilled to 1 to 8 steps, no others",
}

ALIASES: dict[str, tuple[str, ...]] = {
    "euler": ("Euler", "EulerDiscreteScheduler", "k_euler", "FlowMatchEulerDiscreteScheduler"),
    "heun": ("Heun", "HeunDiscreteScheduler", "k_heun", "FlowMatchHeunDiscreteScheduler"),
    "dpmpp_2m": ("DPM++ 2M", "DPMSolverMultistepScheduler", "k_dpmpp_2m"),
    "unipc": ("UniPC", "UniPCMultistepScheduler", "uni_pc", "uni_pc_bh2"),
    "lms": ("LMS", "LMSDiscreteScheduler", "k_lms"),
    "pndm": ("PLMS", "PNDMScheduler"),
    "ddim": ("DDIM", "DDIMScheduler"),
    "euler_ancestral": ("Euler a", "EulerAncestralDiscreteScheduler", "k_euler_a", "k_euler_ancestral"),
    "dpmpp_2m_sde": ("DPM++ 2M SDE", "dpmpp_2m_sde_gpu", "k_dpmpp_2m_sde"),
    "ddpm": ("DDPM", "DDPMScheduler"),
    "lcm": ("LCM", "LCMScheduler", "FlowMatchLCMScheduler"),
}
"""Other spellings: of the web interfaces, of diffusers' classes, of node graphs, of the C++ programs. Upper case,
spaces, hyphens, underscores and "++" for "pp" make no difference."""

SPACINGS: dict[str, tuple[str, ...]] = {
    "karras": ("karras", "k"),
    "exponential": ("exponential",),
    "trailing": ("trailing", "sgm_uniform", "simple"),
    "leading": ("leading", "ddim_uniform"),
    "linspace": ("linspace", "normal"),
}
"""What may follow a sampler's name ("DPM++ 2M Karras"): where its steps lie."""

STAND_INS: dict[str, str] = {
    "DPM2": "heun", "DPM2 a": "euler_ancestral", "DPM++ SDE": "dpmpp_2m_sde", "DPM++ 2S a": "euler_ancestral",
    "DPM++ 3M SDE": "dpmpp_2m_sde", "DPM++ 2M v2": "dpmpp_2m", "DPM fast": "dpmpp_2m", "DPM adaptive": "dpmpp_2m",
    "DEIS": "unipc", "iPNDM": "pndm", "TCD": "lcm", "Restart": "heun",
    "KDPM2DiscreteScheduler": "heun", "KDPM2AncestralDiscreteScheduler": "euler_ancestral",
    "DPMSolverSinglestepScheduler": "dpmpp_2m", "DPMSolverSDEScheduler": "dpmpp_2m_sde",
    "DEISMultistepScheduler": "unipc", "TCDScheduler": "lcm", "IPNDMScheduler": "pndm",
    "EDMEulerScheduler": "euler", "EDMDPMSolverMultistepScheduler": "dpmpp_2m",
}  # fmt: skip
"""Known elsewhere and not here: the nearest in kind, for the hint."""


def canonical(name: str) -> tuple[str, str | None]:
    """A sampler's name in any dialect -> (its name here, where its steps lie; None leaves that to the model).

    A ConjureError names the nearest where nothing matches.
    """
    samplers = {_bare(alias): own for own in SAMPLER_NAMES for alias in (own, *ALIASES[own])}
    asked = _bare(name)
    if asked in samplers:
        return samplers[asked], None
    for spacing, endings in SPACINGS.items():
        for ending in map(_bare, endings):
            if asked.endswith(ending) and asked.removesuffix(ending) in samplers:
                return samplers[asked.removesuffix(ending)], spacing
    near = {_bare(alias): own for alias, own in STAND_INS.items()}
    for ending in ("", *(_bare(ending) for endings in SPACINGS.values() for ending in endings)):
        if (rest := asked.removesuffix(ending)) in near:
            raise ConjureError(f"the sampler '{name}' is not built", hint=f"nearest in kind: {near[rest]}")
    spelled = {_bare(alias): alias for own in SAMPLER_NAMES for alias in (own, *ALIASES[own])}
    close = list(dict.fromkeys(samplers[match] for match in nearest(asked, spelled)))
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(SAMPLER_NAMES)}"
    raise ConjureError(f"unknown sampler '{name}'", hint=f"{hint} ('conjure list samplers' shows all spellings)")


def without_spacing(name: str) -> str:
    """`canonical` for a model that was trained here and brings its own noise levels: a spacing is refused."""
    sampler, spacing = canonical(name)
    if spacing is not None:
        raise ConjureError(
            f"this model brings its own noise levels, so '{name}' cannot choose them ({spacing})",
            hint=f"use {sampler}",
        )
    return sampler


def _bare(name: str) -> str:
    return re.sub(r"[\s_\-.()]", "", name.lower().replace("++", "pp"))
