"""The plans of `scheduler_config.json` against the scheduler classes of diffusers, from the same noise.

Both hold their tables in float32; diffusers also computes each step in float32, and the weights of its solvers from
float32 logarithms, so the last digits differ: 1e-5 of the largest latent is asked for, and where a test allows
more, it says why.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.core.seeds import Noise, normal
from conjure.diffusion.plan import Plan
from conjure.diffusion.samplers import SAMPLERS
from conjure.diffusion.schedule import schedule_from

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from diffusers import (
        DDIMScheduler,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
        FlowMatchEulerDiscreteScheduler,
        HeunDiscreteScheduler,
        LCMScheduler,
        LMSDiscreteScheduler,
        PNDMScheduler,
        UniPCMultistepScheduler,
    )

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers itself

SD: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPE = (4, 4, 4)
PREDICTIONS = ["epsilon", "v_prediction", "sample"]
SPACINGS = ["linspace", "leading", "trailing"]


def network(x: Tensor, t: Tensor) -> Tensor:
    """Some function of what a network reads."""
    t = t.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))
    return (0.7 + 0.2 * torch.sin(t / 300)) * x + 0.3 * torch.tanh(2 * x.roll(1, -1) + torch.cos(t / 70))


class Stream:
    """The draws of one torch generator, for both sides."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(3)

    def __call__(self, shape: Any = SHAPE) -> Tensor:
        return torch.randn((1, *shape), generator=self.generator)


def reference(
    scheduler: Any, steps: int, strength: float = 1.0, eta: float | None = None, **how: Any
) -> tuple[Tensor, list[float]]:
    """The loop of diffusers' pipelines: latents, and the timesteps that the network was told."""
    scheduler.set_timesteps(**({"num_inference_steps": steps} | how))
    flow = isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    begin = int(steps - steps * strength) if flow else steps - int(steps * strength)
    timesteps = scheduler.timesteps[begin * scheduler.order :]
    x = normal([1], SHAPE)
    if strength < 1:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin * scheduler.order)
        add = scheduler.scale_noise if flow else None
        x0 = normal([2], SHAPE)
        x = add(x0, timesteps[:1], x) if add else scheduler.add_noise(x0, x, timesteps[:1])
    elif not flow:
        x = x * scheduler.init_noise_sigma
    stream, told = Stream(), []
    names = scheduler.step.__code__.co_varnames
    more: dict[str, Any] = {"generator": stream.generator} if "generator" in names else {}
    more |= {"eta": eta} if eta is not None else {}
    for t in timesteps:
        read = x if flow else scheduler.scale_model_input(x, t)
        told.append(float(t))
        x = scheduler.step(network(read, t[None]), t, x, return_dict=False, **more)[0]
    return x, told


def ours(plan: Plan, strength: float = 1.0) -> tuple[Tensor, list[float]]:
    told: list[float] = []

    def predict(x: Tensor, t_B: Tensor) -> Tensor:
        assert t_B.shape == (1,) and t_B.dtype == torch.float32
        told.append(float(t_B))
        return network(x, t_B)

    x = plan.noisy(normal([2], SHAPE), normal([1], SHAPE)) if strength < 1 else plan.prior(normal([1], SHAPE))
    steps = list(plan.steps(predict, x, Stream()))
    assert len(told) == plan.evaluations and len(steps) == plan.count
    return steps[-1].x, told


def same(
    scheduler: Any, steps: int, *, sampler: str = "", strength: float = 1.0, eta: float | None = None,
    tolerance: float = 1e-5, tokens: int | None = None, file: dict[str, Any] | None = None, **how: Any,
) -> None:  # fmt: skip
    expected, told = reference(scheduler, steps, strength, eta, **how)
    config = {**scheduler.config, "_class_name": type(scheduler).__name__} if file is None else file
    plan = schedule_from(config, sampler).plan(steps, strength=strength, eta=eta or 0.0, tokens=tokens)
    x, told_ours = ours(plan, strength)
    assert told_ours == pytest.approx(told, rel=1e-6, abs=1e-4)
    assert x.dtype == torch.float32
    error = (x - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f"off by {error:.1e}"


@pytest.mark.parametrize("steps", [7, 10])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(
    "kind",
    [
        DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, HeunDiscreteScheduler,
        LMSDiscreteScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler, PNDMScheduler,
    ],
)  # fmt: skip
def test_every_scheduler_prediction_and_spacing(kind: Any, prediction: str, spacing: str, steps: int) -> None:
    options: dict[str, Any] = {"skip_prk_steps": True} if kind is PNDMScheduler else {}
    options |= {"clip_sample": False} if kind in (DDIMScheduler, DDPMScheduler) else {}
    offset = 1
    if prediction == "sample" and kind in (PNDMScheduler, EulerAncestralDiscreteScheduler):
        prediction, offset = "epsilon", 0  # their classes do not know it
    same(kind(**SD, **options, prediction_type=prediction, timestep_spacing=spacing, steps_offset=offset), steps)


@pytest.mark.parametrize("betas", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("kind", [DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_other_betas(kind: Any, betas: str) -> None:
    # The squared cosine starts Euler's latents 20000 times as large as they end, and diffusers adds to them in
    # float32: the last digit of the first is 1e-3 of what is left after the step.
    cosine = betas == "squaredcos_cap_v2"
    far = cosine and kind is EulerDiscreteScheduler
    prediction = "v_prediction" if cosine else "epsilon"
    same(kind(beta_schedule=betas, prediction_type=prediction), 8, tolerance=1e-3 if far else 1e-5)


@pytest.mark.parametrize("levels", ["use_karras_sigmas", "use_exponential_sigmas"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(
    "kind",
    [EulerDiscreteScheduler, HeunDiscreteScheduler, LMSDiscreteScheduler, DPMSolverMultistepScheduler,
     UniPCMultistepScheduler],
)  # fmt: skip
def test_levels_of_karras_and_exponential_ones(kind: Any, prediction: str, levels: str) -> None:
    same(kind(**SD, prediction_type=prediction, **{levels: True}), 9)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_with_fresh_noise_clipping_and_either_end(eta: float, last: bool, clip: bool) -> None:
    same(DDIMScheduler(**SD, set_alpha_to_one=last, clip_sample=clip, clip_sample_range=1.5), 8, eta=eta)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ddpm_variances_and_clipping(variance: str) -> None:
    same(DDPMScheduler(variance_type=variance), 12)  # type: ignore[arg-type]


def test_clipping_of_heun() -> None:
    same(HeunDiscreteScheduler(clip_sample=True, clip_sample_range=1.5), 8)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("last", ["zero", "sigma_min"])
@pytest.mark.parametrize("steps", [8, 16])
def test_noisy_dpm_solver(prediction: str, last: str, steps: int) -> None:
    options: dict[str, Any] = {"algorithm_type": "sde-dpmsolver++", "final_sigmas_type": last}
    same(DPMSolverMultistepScheduler(**SD, prediction_type=prediction, **options), steps)  # type: ignore[arg-type]
    options["use_karras_sigmas"] = True
    same(DPMSolverMultistepScheduler(**SD, prediction_type=prediction, **options), steps)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [8, 16])
@pytest.mark.parametrize("options", [
    {"final_sigmas_type": "sigma_min"}, {"final_sigmas_type": "sigma_min", "lower_order_final": False},
    {"final_sigmas_type": "sigma_min", "euler_at_final": True, "lower_order_final": False},
    {"lower_order_final": False}, {"solver_order": 1},
])  # fmt: skip
def test_ends_of_dpm_solver(options: dict[str, Any], steps: int) -> None:
    same(DPMSolverMultistepScheduler(**SD, **options), steps)


@pytest.mark.parametrize("options", [
    {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}, {"solver_order": 1}, {"solver_order": 3},
    {"final_sigmas_type": "sigma_min"}, {"final_sigmas_type": "sigma_min", "lower_order_final": False},
    {"solver_order": 3, "solver_type": "bh1", "final_sigmas_type": "sigma_min"},
])  # fmt: skip
def test_choices_of_unipc(options: dict[str, Any]) -> None:
    # Its weights come from differences of float32 numbers near 1, the third order's from differences of those.
    same(UniPCMultistepScheduler(**SD, **options), 9, tolerance=1e-4 if options.get("solver_order") == 3 else 2e-5)


@pytest.mark.parametrize("options", [
    {"final_sigmas_type": "sigma_min"}, {"timestep_type": "continuous", "prediction_type": "v_prediction"},
    {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 9.0},
])  # fmt: skip
def test_choices_of_euler(options: dict[str, Any]) -> None:
    same(EulerDiscreteScheduler(**SD, **options), 9)


@pytest.mark.parametrize("kind", [DDIMScheduler, DDPMScheduler, LCMScheduler])
@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_no_signal_at_the_end_of_training(kind: Any, prediction: str) -> None:
    options = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "clip_sample": False}
    same(kind(**SD, prediction_type=prediction, **options), 5)


@pytest.mark.parametrize(
    "kind",
    [EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler],
)
def test_almost_no_signal_at_the_end_of_training(kind: Any) -> None:
    # Euler's latents start 4096 times as large as they end, and diffusers adds to them in float32.
    options = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    same(kind(**SD, **options), 6, tolerance=1e-4)


@pytest.mark.parametrize("steps", [1, 4, 8])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_lcm(prediction: str, steps: int) -> None:
    same(LCMScheduler(prediction_type=prediction), steps)
    same(LCMScheduler(prediction_type=prediction, clip_sample=True, original_inference_steps=25), steps)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("kind", [DDIMScheduler, PNDMScheduler, HeunDiscreteScheduler, DPMSolverMultistepScheduler])
def test_few_steps(kind: Any, steps: int) -> None:
    extra: dict[str, Any] = {"skip_prk_steps": True} if kind is PNDMScheduler else {}
    if steps == 1 and kind is DPMSolverMultistepScheduler:
        extra["timestep_spacing"] = "trailing"
    same(kind(**SD, **extra, prediction_type="v_prediction"), steps)


@pytest.mark.parametrize("options", [
    {}, {"shift": 3.0}, {"shift": 3.0, "use_karras_sigmas": True}, {"shift": 3.0, "shift_terminal": 0.1},
    {"stochastic_sampling": True},
])  # fmt: skip
def test_flow_matching(options: dict[str, Any]) -> None:
    same(FlowMatchEulerDiscreteScheduler(**options), 8)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_flow_matching_shifted_by_the_size_of_the_picture(kind: str) -> None:
    import numpy as np

    tokens, steps = 1024, 7
    mu = (1.15 - 0.5) / (4096 - 256) * tokens + 0.5 - (1.15 - 0.5) / (4096 - 256) * 256
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind)  # type: ignore[arg-type]
    same(scheduler, steps, tokens=tokens, sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    with pytest.raises(ConjureError, match="picture's size"):
        schedule_from({**scheduler.config, "_class_name": "FlowMatchEulerDiscreteScheduler"}).plan(steps)


@pytest.mark.parametrize("kind", [DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_solvers_on_flow_levels(kind: Any) -> None:
    # The first level is 1 - 1e-6 or so, of which float32 keeps two digits; diffusers takes logarithms of it.
    scheduler = kind(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    same(scheduler, 8, tolerance=1e-4)


@pytest.mark.parametrize("strength", [0.3, 0.75])
@pytest.mark.parametrize(
    "kind",
    [
        DDIMScheduler, DDPMScheduler, PNDMScheduler, EulerDiscreteScheduler, EulerAncestralDiscreteScheduler,
        HeunDiscreteScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler, LCMScheduler,
    ],
)  # fmt: skip
def test_starts_from_a_picture(kind: Any, strength: float) -> None:
    extra = {"skip_prk_steps": True} if kind is PNDMScheduler else {}
    same(kind(**SD, **extra, steps_offset=1), 10, strength=strength)


@pytest.mark.parametrize("strength", [0.3, 0.75])
def test_flow_starts_from_a_picture(strength: float) -> None:
    same(FlowMatchEulerDiscreteScheduler(shift=3.0), 10, strength=strength)


STABLE = {
    "_class_name": "PNDMScheduler", **SD, "num_train_timesteps": 1000, "set_alpha_to_one": False,
    "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None, "clip_sample": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("", PNDMScheduler, {}),
        ("DDIM", DDIMScheduler, {}),
        ("euler_a", EulerAncestralDiscreteScheduler, {}),
        ("Euler", EulerDiscreteScheduler, {}),
        ("LMS Karras", LMSDiscreteScheduler, {"use_karras_sigmas": True}),
        ("DPM++ 2M Karras", DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
        ("dpmpp_2m_sde", DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
        ("UniPCMultistepScheduler", UniPCMultistepScheduler, {}),
        ("euler trailing", EulerDiscreteScheduler, {"timestep_spacing": "trailing"}),
        ("lcm", LCMScheduler, {}),
    ],
)
def test_another_sampler_than_the_files(name: str, kind: Any, options: dict[str, Any]) -> None:
    same(kind.from_config(STABLE, **options), 10, sampler=name, file=STABLE)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_runs_on_flow_files(name: str) -> None:
    """A network that knows the data answers with the line to it, and is not led away."""
    goal = normal([9], SHAPE)
    plan = schedule_from({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, name).plan(6)
    steps = list(plan.steps(lambda x, t_B: (x - goal) / (t_B / 1000), plan.prior(normal([1], SHAPE)), Noise([4])))
    torch.testing.assert_close(steps[-1].x, goal, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["euler", "ddim", "dpmpp_2m", "unipc", "pndm", "dpmpp_2m_sde"])
def test_what_a_mask_protects_stays(name: str) -> None:
    kept = normal([9], SHAPE)
    mask = torch.zeros(SHAPE)
    mask[:, 2:] = 1
    plan = schedule_from({**STABLE, "set_alpha_to_one": True}, name).plan(8)
    start = plan.noisy(kept, normal([1], SHAPE))
    *_, last = plan.steps(network, start, Noise([4]), hold=lambda x0: mask * x0 + (1 - mask) * kept)
    torch.testing.assert_close(last.x[:, :, :2], kept[:, :, :2], rtol=1e-4, atol=1e-4)
    assert (last.x - kept)[:, :, 2:].abs().max() > 0.1


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2m_sde", "ddpm", "lcm", "unipc"])
def test_a_picture_alone_equals_the_picture_in_a_batch(name: str) -> None:
    plan = schedule_from(STABLE, name).plan(5)

    def run(seeds: list[int]) -> Tensor:
        return list(plan.steps(network, plan.prior(normal(seeds, SHAPE)), Noise(seeds)))[-1].x

    torch.testing.assert_close(run([5, 9])[1], run([9])[0], rtol=0, atol=1e-6)


def test_nan_is_named_with_its_step() -> None:
    plan = schedule_from(STABLE, "euler").plan(6)
    calls = 0

    def broken(x: Tensor, t_B: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return x * (torch.nan if calls == 4 else 1)

    with pytest.raises(ConjureError, match="became NaN at step 4 of 6") as error:
        list(plan.steps(broken, plan.prior(normal([1], SHAPE))))
    assert "float32" in error.value.hint


def test_a_network_that_also_predicts_its_variance() -> None:
    plan = schedule_from(STABLE, "ddim").plan(3)
    start = plan.prior(normal([1], SHAPE))
    both = list(plan.steps(lambda x, t_B: torch.cat([network(x, t_B), x], 1), start))[-1].x
    assert torch.equal(both, list(plan.steps(network, start))[-1].x)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_class_name": "EDMEulerScheduler"}, "not known"),
        ({"thresholding": True}, "thresholding"),
        ({"skip_prk_steps": False}, "Runge-Kutta"),
        ({"prediction_type": "score"}, "prediction_type"),
        ({"beta_schedule": "sigmoid"}, "betas"),
        ({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}, "algorithm_type"),
        ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3}, "solver_order"),
        ({"_class_name": "DDPMScheduler", "variance_type": "learned_range"}, "variance_type"),
    ],
)
def test_what_is_not_built_is_said(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConjureError, match=said):
        schedule_from({**STABLE, **change}).plan(5)


def test_impossible_requests_are_refused() -> None:
    schedule = schedule_from(STABLE)
    with pytest.raises(ConjureError, match="leaves none"):
        schedule.plan(5, strength=0.1)
    with pytest.raises(ConjureError, match="sampling steps"):
        schedule.plan(1001)
    with pytest.raises(ConjureError, match="eta"):
        schedule.plan(5, eta=0.5)
    with pytest.raises(ConjureError, match="training's own steps"):
        schedule_from(STABLE, "ddim karras").plan(5)
    with pytest.raises(ConjureError, match="distilled"):
        schedule_from(STABLE, "lcm").plan(60)
