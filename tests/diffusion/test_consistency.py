"""A student's loss and its short samplers, on Gaussian data, whose ODE has a closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.core.seeds import Noise
from conjure.diffusion.consistency import Consistency
from conjure.diffusion.denoiser import Denoiser, column
from conjure.diffusion.flow import RectifiedFlow
from conjure.diffusion.samplers import SAMPLERS
from tests.diffusion.gaussian import MEAN, SPREAD, carried, velocity

SAMPLE = RectifiedFlow(predict="sample")
TEACHER = RectifiedFlow().denoise(velocity)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def straight(x: Tensor, t_B: Tensor) -> Tensor:
    """The end of the line from the ODE's end to its noise, MEAN + SPREAD noise, on which x lies."""
    t = column(t_B, x)
    return MEAN + SPREAD * (x - (1 - t) * MEAN) / ((1 - t) * SPREAD + t)


def along_the_ode(x: Tensor, t_B: Tensor) -> Tensor:
    """The consistency function of the teacher's own ODE."""
    t = column(t_B, x)
    return MEAN + SPREAD * (x - (1 - t) * MEAN) / ((1 - t).square() * SPREAD**2 + t.square()).sqrt()


def best(x: Tensor, t_B: Tensor) -> Tensor:
    """The teacher's estimate of the data, E[x0 | x_t]."""
    return TEACHER(x, t_B)


def test_the_teachers_ends_are_those_of_its_ode() -> None:
    noise = draws(5, 40)
    exact = carried(TEACHER, noise, 1.0, 0.0)
    off = [(Consistency(solver=k).ends(TEACHER, noise) - exact).abs().mean().item() for k in (1, 4, 16, 64)]
    assert off == sorted(off, reverse=True) and off[0] > 0.1 and off[-1] < 0.002


@pytest.mark.parametrize("steps", [(1,), (2,), (4,), (1, 2, 4), (3, 8)])
def test_the_loss_is_zero_for_a_student_that_ends_where_the_teacher_does(steps: tuple[int, ...]) -> None:
    noise = draws(5, 40)
    end = carried(TEACHER, noise, 1.0, 0.0)
    student = Consistency(flow=SAMPLE, steps=steps)
    loss_B = student.loss(straight, end, noise)
    assert loss_B.dtype == torch.float32 and loss_B.shape == (5,) and loss_B.abs().max() < 1e-6
    assert student.loss(best, end, noise).min() > 0.02
    assert student.loss(lambda x, t_B: straight(x, t_B) + 0.1, end, noise).min() > 0.09


def test_a_student_that_predicts_velocity_is_judged_by_the_same_pictures() -> None:
    noise = draws(5, 40)
    end = carried(TEACHER, noise, 1.0, 0.0)

    def speed(x: Tensor, t_B: Tensor) -> Tensor:
        return (x - straight(x, t_B)) / column(t_B, x)

    assert Consistency().loss(speed, end, noise).max() < 1e-6
    torch.testing.assert_close(Consistency().loss(velocity, end, noise),
                               Consistency(flow=SAMPLE).loss(best, end, noise))


def test_what_is_drawn_is_what_eulers_sampler_draws() -> None:
    student, noise = Consistency(flow=RectifiedFlow(predict="sample", shift=2.0), steps=(1, 2, 5)), draws(3, 7)
    calls: list[float] = []

    def network(x: Tensor, t_B: Tensor) -> Tensor:
        calls.append(float(t_B[0]))
        return torch.sin(x) + column(t_B, x)

    made = student.drawn(student.denoise(network), noise)
    assert calls[0] == 1 and len(calls) == 1 + 0 + 1 + 4, "the first evaluation is shared"
    for x, steps in zip(made, (1, 2, 5), strict=True):
        torch.testing.assert_close(x, SAMPLERS["euler"](student.denoise(network), noise, student.sigmas(steps)))


def test_gradients_reach_every_step_of_the_student_and_none_of_the_teacher() -> None:
    weight, own = torch.ones((), requires_grad=True), torch.ones((), requires_grad=True)
    student = Consistency(flow=SAMPLE, steps=(4,))
    noise = draws(3, 7)
    end = student.ends(Denoiser(lambda x, t_B: own * best(x, t_B), TEACHER.signal), noise)
    assert not end.requires_grad
    for step in (1.0, 0.75, 0.5, 0.25):
        weight.grad = None

        def network(x: Tensor, t_B: Tensor, step: float = step) -> Tensor:
            return best(x, t_B) * (weight if float(t_B[0]) == step else 1)

        student.loss(network, end, noise).sum().backward()
        assert weight.grad is not None and weight.grad.abs() > 1e-3, step
    assert own.grad is None


def test_a_scale_is_learnt_back() -> None:
    """Gradient steps on a student that is wrong by a factor and an offset bring it to the exact one."""
    wrong = torch.tensor([0.5, 0.4], dtype=torch.float64, requires_grad=True)
    student, noise = Consistency(flow=SAMPLE), draws(16, 8)
    end = carried(TEACHER, noise, 1.0, 0.0)
    optimizer = torch.optim.Adam([wrong], lr=0.05)
    for step in range(100):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 100)
        optimizer.zero_grad()
        student.loss(lambda x, t_B: wrong[0] * straight(x, t_B) + wrong[1], end, noise).mean().backward()
        optimizer.step()
    torch.testing.assert_close(wrong.detach(), torch.tensor([1.0, 0.0], dtype=torch.float64), atol=1e-2, rtol=0)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_fresh_noise_suits_the_odes_own_consistency_function(steps: int) -> None:
    """Multistep consistency sampling keeps the data's spread with that function; with the straight one it loses some,
    since a state with fresh noise lies on no line from an end to its noise."""
    flow, seeds = Consistency(flow=SAMPLE), range(400)
    noise, fresh = draws(400, 100), SAMPLERS["lcm"]
    right = fresh(flow.denoise(along_the_ode), noise, flow.sigmas(steps), noise=Noise(seeds))
    assert abs(right.mean() - MEAN) < 0.02 and abs(right.std() - SPREAD) < 0.01
    narrow = fresh(flow.denoise(straight), noise, flow.sigmas(steps), noise=Noise(seeds))
    assert abs(narrow.mean() - MEAN) < 0.02 and (narrow.std() < SPREAD - 0.1) == (steps > 1)


@pytest.mark.parametrize("change", [{"steps": ()}, {"steps": (2, 0)}, {"solver": 0}])
def test_numbers_of_steps_are_checked(change: dict[str, object]) -> None:
    with pytest.raises(ConjureError, match="steps and solver of at least 1"):
        Consistency(**change)  # type: ignore[arg-type]
