"""Names of samplers in the dialects that people use."""

from __future__ import annotations

import pytest

from conjure.core.errors import ConjureError
from conjure.diffusion.names import ALIASES, SAMPLER_NAMES, SPACINGS, STAND_INS, canonical, without_spacing


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DPM++ 2M Karras", ("dpmpp_2m", "karras")),
        ("DPM++ 2M", ("dpmpp_2m", None)),
        ("dpm++2m", ("dpmpp_2m", None)),
        ("dpmpp_2m_k", ("dpmpp_2m", "karras")),
        ("DPMSolverMultistepScheduler", ("dpmpp_2m", None)),
        ("DPM++ 2M SDE Karras", ("dpmpp_2m_sde", "karras")),
        ("DPM++ 2M SDE Exponential", ("dpmpp_2m_sde", "exponential")),
        ("dpmpp_2m_sde_gpu", ("dpmpp_2m_sde", None)),
        ("dpmpp_2m_sde_k", ("dpmpp_2m_sde", "karras")),
        ("euler_a", ("euler_ancestral", None)),
        ("Euler a", ("euler_ancestral", None)),
        ("k_euler_ancestral", ("euler_ancestral", None)),
        ("euler sgm_uniform", ("euler", "trailing")),
        ("euler simple", ("euler", "trailing")),
        ("euler normal", ("euler", "linspace")),
        ("ddim_trailing", ("ddim", "trailing")),
        ("ddim ddim_uniform", ("ddim", "leading")),
        ("LMS Karras", ("lms", "karras")),
        ("lms_k", ("lms", "karras")),
        ("uni_pc_bh2", ("unipc", None)),
        ("unipc_k", ("unipc", "karras")),
        ("plms", ("pndm", None)),
        ("LCM", ("lcm", None)),
        ("FlowMatchEulerDiscreteScheduler", ("euler", None)),
    ],
)
def test_dialects(name: str, expected: tuple[str, str | None]) -> None:
    assert canonical(name) == expected


def test_every_name_and_alias_is_itself() -> None:
    assert list(ALIASES) == list(SAMPLER_NAMES)
    for own, others in ALIASES.items():
        assert [canonical(name) for name in (own, *others)] == [(own, None)] * (len(others) + 1)
        for spacing in SPACINGS:
            assert canonical(f"{own} {spacing}") == (own, spacing)


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(ConjureError, match="unknown sampler 'eular'") as error:
        canonical("eular")
    assert "euler" in error.value.hint
    with pytest.raises(ConjureError) as error:
        canonical("xyzzy")
    assert "known: euler, heun" in error.value.hint


def test_what_is_known_elsewhere_names_a_stand_in() -> None:
    for name, instead in STAND_INS.items():
        with pytest.raises(ConjureError, match="is not built") as error:
            canonical(name)
        assert error.value.hint == f"nearest in kind: {instead}" and instead in SAMPLER_NAMES
    with pytest.raises(ConjureError, match="is not built"):
        canonical("DPM++ SDE Karras")


def test_own_models_bring_their_levels() -> None:
    assert without_spacing("DPM++ 2M SDE") == "dpmpp_2m_sde"
    with pytest.raises(ConjureError, match="own noise levels") as error:
        without_spacing("DPM++ 2M Karras")
    assert error.value.hint == "use dpmpp_2m"
