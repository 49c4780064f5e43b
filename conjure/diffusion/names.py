"""The samplers by name, for listings that must not wait for torch; `samplers.py` holds them."""

from __future__ import annotations

SAMPLER_NAMES: dict[str, str] = {
    "euler": "straight steps along the ODE, one evaluation each (= DDIM); the plainest",
    "heun": "second order, each step tried and corrected; two evaluations a step",
    "dpmpp_2m": "DPM-Solver++(2M), second order from the memory of the last step, one evaluation a step",
    "euler_ancestral": "takes noise away and adds fresh noise at every step; more varied, does not converge",
}
