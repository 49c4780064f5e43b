"""The schedules of published diffusion models: from `scheduler_config.json` to a plan of levels, timesteps and steps.

`schedule_from(config, sampler).plan(steps)` gives from the same noise the latents that the scheduler classes of
diffusers give. Where they do not follow from the mathematics (a step that ends at another level than the next one
starts from, timesteps rounded or not), these are their habits and are kept, for pictures to come out as known.

Legend: T training steps, n sampling steps, t a training step, sigma noise beside data of unit scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.diffusion.multistep import dpmpp_2m_sde_steps, dpmpp_2m_steps
from conjure.diffusion.names import canonical
from conjure.diffusion.one_step import ddim_steps, euler_ancestral_steps, lcm_steps
from conjure.diffusion.plan import EXPLODING, PRESERVING, STRAIGHT, Plan
from conjure.diffusion.plms import plms_rows, plms_steps
from conjure.diffusion.samplers import SAMPLERS
from conjure.diffusion.scheduler_config import SchedulerConfig, read_scheduler_config
from conjure.diffusion.spacing import (
    alpha_bars,
    betas_of,
    dynamic_shift,
    exponential,
    karras,
    shifted,
    sigmas_of,
    spaced,
    steps_at,
    stretched,
    zero_terminal,
)
from conjure.diffusion.unipc import unipc_steps

CHAIN = ("ddim", "ddpm", "pndm", "lcm")
"""The samplers that step on the training's own steps; the others on noise levels between them."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How one checkpoint is sampled."""

    sampler: str
    """Its canonical name."""
    config: SchedulerConfig

    def plan(self, steps: int, *, strength: float = 1.0, tokens: int | None = None, eta: float = 0.0) -> Plan:
        """The plan of a number of steps.

        `strength` in (0, 1] is the part of the steps that image-to-image runs, from a picture with noise. `tokens`,
        for flow models alone, is the number of picture tokens (2 x 2 latents) of families that shift by it (Flux and
        its kin); it also asks for their levels, even from 1 to 1 / n before the shift. `eta` is DDIM's share of fresh
        noise.
        """
        if not 0 < strength <= 1:
            raise ConjureError(f"strength is above 0 and at most 1, got {strength}")
        if not 1 <= steps <= self.config.num_train_timesteps:
            raise ConjureError(
                f"this schedule has {self.config.num_train_timesteps} training steps, so no {steps} sampling steps",
                hint="20 to 50 are usual",
            )
        if not 0 <= eta <= 1 or (eta > 0 and self.sampler != "ddim"):
            raise ConjureError(f"eta is a number from 0 to 1 and DDIM's own, got {eta} for {self.sampler}")
        flow = self.config.flow_match or self.config.use_flow_sigmas
        # The two families cut differently: 10 steps at strength 0.75 are 7 there and 8 here.
        start = int(steps - steps * strength) if flow else steps - int(steps * strength)
        if start >= steps:
            raise ConjureError(
                f"strength {strength} of {steps} steps leaves none", hint="ask for more steps or a higher strength"
            )
        if flow:
            return self._on_flow(steps, start, tokens)
        if self.sampler in CHAIN:
            return self._on_chain(steps, start, eta)
        return self._on_levels(steps, start)

    def _alpha_bars(self) -> Tensor:
        """float32 [T]."""
        c = self.config
        betas = betas_of(c.beta_schedule, c.beta_start, c.beta_end, c.num_train_timesteps)  # type: ignore[arg-type]
        return alpha_bars(zero_terminal(betas) if c.rescale_betas_zero_snr else betas)

    def _sigmas(self) -> np.ndarray:
        """sigma of every training step, float32 [T]."""
        alpha_bar_T = self._alpha_bars()
        if self.config.rescale_betas_zero_snr:
            alpha_bar_T[-1] = 0
        return sigmas_of(alpha_bar_T)

    def _on_chain(self, steps: int, start: int, eta: float) -> Plan:
        c = self.config
        if c.use_karras_sigmas or c.use_exponential_sigmas:
            raise ConjureError(
                f"{self.sampler} steps on the training's own steps, so it cannot take Karras' or exponential levels",
                hint="use euler, heun, dpmpp_2m, dpmpp_2m_sde, unipc or lms for them",
            )
        visited = _visited(self.sampler, c, steps)
        stride = c.num_train_timesteps // steps
        algorithm: Any
        if self.sampler == "pndm":
            twice = [*visited[:2], *visited[1:]][start:] if steps > 1 else visited
            rows = plms_rows(twice, stride)
            algorithm = partial(plms_steps, velocity=c.predicts == "v")
        else:
            ends = [t - stride for t in visited] if self.sampler == "ddim" else [*visited[1:], -1]
            rows = list(zip(visited[start:], ends[start:], strict=True))
            algorithm = {
                "ddim": partial(ddim_steps, eta=eta, clip=c.clip),
                "ddpm": partial(euler_ancestral_steps, large=c.variance_type == "fixed_large"),
                "lcm": lcm_steps,
            }[self.sampler]
        alpha_bar_T = self._alpha_bars().double()
        clean = alpha_bar_T.new_ones(1) if c.set_alpha_to_one or self.sampler in ("ddpm", "lcm") else alpha_bar_T[:1]
        at = torch.tensor(rows).clamp(-1, c.num_train_timesteps - 1)
        levels = (1 - torch.cat([alpha_bar_T, clean])[at]).clamp_min(0).sqrt()
        return Plan(
            algorithm=algorithm, path=PRESERVING, levels=levels, asked=levels[:, 0], timesteps=at[:, 0].float(),
            predicts=c.predicts, count=len(rows) - (self.sampler == "pndm" and len(rows) > 1), evaluations=len(rows),
            spread=1.0, clip=math.inf if self.sampler == "ddim" else c.clip,
            boundary=c.timestep_scaling if self.sampler == "lcm" else 0.0,
        )  # fmt: skip

    def _on_levels(self, steps: int, start: int) -> Plan:
        c = self.config
        table_T = self._sigmas()
        solver = self.sampler in _SOLVERS
        sigmas, timesteps = (_solver_levels if solver else _euler_levels)(self.sampler, c, table_T, steps)
        last = float(table_T[0]) if c.final_sigmas_type == "sigma_min" else 0.0
        levels = _float32(np.append(sigmas, last))
        highest = float(levels[0])
        spread = highest if c.timestep_spacing != "leading" else (highest**2 + 1) ** 0.5
        if c.timestep_type == "continuous" and c.predicts == "v" and not solver:
            timesteps = 0.25 * levels[:-1].log().numpy()
        return Plan(
            algorithm=self._algorithm(steps), path=EXPLODING, levels=levels[start:], asked=levels[start:-1],
            timesteps=torch.from_numpy(timesteps[start:].copy()).float(), predicts=c.predicts, count=steps - start,
            evaluations=self._evaluations(steps - start, last), spread=1.0 if solver else spread, unit=solver,
            clip=c.clip if self.sampler == "heun" else math.inf,
        )  # fmt: skip

    def _on_flow(self, steps: int, start: int, tokens: int | None) -> Plan:
        c = self.config
        own = self.sampler in _SOLVERS and not c.flow_match
        sigmas = (_solver_flow if own else _flow_levels)(self.sampler, c, steps, tokens)
        levels = _float32(np.append(sigmas, 0.0))
        told = sigmas * c.num_train_timesteps
        timesteps = torch.from_numpy(told).long().float() if own else levels[:-1].float() * c.num_train_timesteps
        return Plan(
            algorithm=self._algorithm(steps), path=STRAIGHT, levels=levels[start:], asked=levels[start:-1],
            timesteps=timesteps[start:], predicts=c.predicts, count=steps - start,
            evaluations=self._evaluations(steps - start, 0.0), spread=1.0,
        )  # fmt: skip

    def _algorithm(self, steps: int) -> Any:
        """The steps of the sampler with the config's choices."""
        c = self.config
        if self.sampler == "unipc":
            kind: Any = c.solver_type
            return partial(unipc_steps, order=c.solver_order, kind=kind, falling=c.lower_order_final)
        if self.sampler in _SOLVERS:
            if c.solver_order == 1 and self.sampler == "dpmpp_2m":
                return ddim_steps
            plain_end = c.euler_at_final or (c.lower_order_final and steps < 15)
            return partial(_SOLVERS[self.sampler], plain_end=plain_end)
        return SAMPLERS[self.sampler].algorithm

    def _evaluations(self, steps: int, last: float) -> int:
        return 2 * steps if self.sampler == "heun" and last > 0 else SAMPLERS[self.sampler].evaluations(steps)


_SOLVERS: dict[str, Any] = {"dpmpp_2m": dpmpp_2m_steps, "dpmpp_2m_sde": dpmpp_2m_sde_steps, "unipc": unipc_steps}
"""The samplers that work in log-SNR: their latents keep unit variance, and their last step ends at no training step."""


def schedule_from(file: Mapping[str, Any], sampler: str = "") -> Schedule:
    """The schedule of a `scheduler_config.json`.

    `sampler`, a name in any dialect ("DPM++ 2M Karras", "euler_a", `DPMSolverMultistepScheduler`), puts another
    algorithm in place of the file's; "" keeps the file's own. A ConjureError says what is not built.
    """
    name, spacing = canonical(sampler) if sampler else ("", None)
    name, config = read_scheduler_config(file, name)
    if spacing in ("karras", "exponential"):
        config = replace(
            config, use_karras_sigmas=spacing == "karras", use_exponential_sigmas=spacing == "exponential"
        )
    elif spacing is not None:
        config = replace(config, timestep_spacing=spacing, use_karras_sigmas=False, use_exponential_sigmas=False)
    return Schedule(sampler=name, config=config)


def _visited(sampler: str, c: SchedulerConfig, steps: int) -> list[int]:
    """The training steps of a sampler that keeps to them, descending."""
    count = c.num_train_timesteps
    if sampler == "lcm":
        known = np.arange(1, c.original_inference_steps + 1) * (count // c.original_inference_steps) - 1
        if steps > len(known):
            raise ConjureError(
                f"this model was distilled for {len(known)} steps at most, not {steps}", hint="4 to 8 are usual"
            )
        places = np.floor(np.linspace(0, len(known), steps, endpoint=False)).astype(int)
        return known[::-1][places].tolist()
    spacing: Any = c.timestep_spacing
    return spaced(spacing, steps, count, offset=c.steps_offset).round().astype(int).clip(max=count - 1).tolist()


def _euler_levels(
    sampler: str, c: SchedulerConfig, table_T: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Levels and timesteps of the samplers that step in sigma: the timesteps lie between whole ones."""
    spacing: Any = c.timestep_spacing
    timesteps = spaced(spacing, steps, c.num_train_timesteps, offset=c.steps_offset).astype(np.float32)
    sigmas = np.interp(timesteps, np.arange(len(table_T)), table_T)
    highest, lowest = c.sigma_max or float(sigmas[0]), c.sigma_min or float(sigmas[-1])
    if c.use_karras_sigmas or c.use_exponential_sigmas:
        sigmas = (karras if c.use_karras_sigmas else exponential)(highest, lowest, steps)
        timesteps = steps_at(sigmas, table_T)
    return sigmas, timesteps


def _solver_levels(
    sampler: str, c: SchedulerConfig, table_T: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Levels and timesteps of the solvers in log-SNR: whole timesteps, one more place than steps."""
    if c.use_karras_sigmas or c.use_exponential_sigmas:
        highest, lowest = c.sigma_max or float(table_T[-1]), c.sigma_min or float(table_T[0])
        sigmas = (karras if c.use_karras_sigmas else exponential)(highest, lowest, steps)
        timesteps = steps_at(sigmas, table_T)
        rounds = c.use_karras_sigmas and (sampler == "unipc" or c.beta_schedule != "squaredcos_cap_v2")
        return sigmas, timesteps.round() if rounds else np.trunc(timesteps)
    spacing: Any = c.timestep_spacing
    inner = spacing != "trailing"
    timesteps = spaced(spacing, steps, c.num_train_timesteps, offset=c.steps_offset, inner=inner).round()
    return np.interp(timesteps, np.arange(len(table_T)), table_T), timesteps


def _flow_levels(sampler: str, c: SchedulerConfig, steps: int, tokens: int | None) -> np.ndarray:
    """Levels of a flow-matching file, float64 [n]."""
    count, still = c.num_train_timesteps, c.shift if c.flow_match else c.flow_shift
    if tokens is None:
        lowest = np.array([1 / count])
        lowest = lowest if c.use_dynamic_shifting else shifted(lowest, still).astype(np.float32)
        sigmas = np.linspace(1.0, lowest.item(), steps)
    else:
        sigmas = np.linspace(1.0, 1 / steps, steps).astype(np.float32).astype(np.float64)
    if c.use_dynamic_shifting:
        still = _dynamic(c, tokens)
    sigmas = shifted(sigmas, still)
    if c.shift_terminal:
        sigmas = stretched(sigmas, c.shift_terminal)
    if c.use_karras_sigmas or c.use_exponential_sigmas:
        levels = karras if c.use_karras_sigmas else exponential
        sigmas = levels(c.sigma_max or float(sigmas[0]), c.sigma_min or float(sigmas[-1]), steps)
    return sigmas


def _solver_flow(sampler: str, c: SchedulerConfig, steps: int, tokens: int | None) -> np.ndarray:
    """Levels of a solver in log-SNR whose file asks for flow levels, float64 [n]."""
    if c.use_karras_sigmas or c.use_exponential_sigmas or c.final_sigmas_type != "zero":
        raise ConjureError("flow levels in Karras' or exponential spacing, or with sigma_min at the end, are not built")
    still = _dynamic(c, tokens) if c.use_dynamic_shifting else c.flow_shift
    if sampler == "unipc":
        sigmas = shifted(np.linspace(1, 1 / c.num_train_timesteps, steps + 1)[:-1], still)
        sigmas = stretched(sigmas, c.shift_terminal) if c.shift_terminal else sigmas
        return np.minimum(sigmas, 1 - 1e-6)  # the start is infinitely far away in log-SNR
    return shifted(1 - np.linspace(1, 1 / c.num_train_timesteps, steps + 1), still)[::-1][:-1]


def _dynamic(c: SchedulerConfig, tokens: int | None) -> float:
    if tokens is None:
        raise ConjureError("this model shifts its levels by the picture's size", hint="pass tokens=")
    mu = dynamic_shift(
        tokens, base=c.base_shift, most=c.max_shift, base_tokens=c.base_image_seq_len, most_tokens=c.max_image_seq_len
    )
    return math.exp(mu) if c.time_shift_type == "exponential" else mu


def _float32(levels: np.ndarray) -> Tensor:
    """Rounded to float32, which published pictures were made with, and kept as float64."""
    return torch.from_numpy(levels).float().double()
