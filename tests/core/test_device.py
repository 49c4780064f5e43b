from __future__ import annotations

import pytest
import torch

from conjure.core import device
from conjure.core.errors import ConjureError


def test_auto_is_a_device_that_works() -> None:
    chosen = device.pick()
    assert torch.ones(2, device=chosen).sum().item() == 2
    assert device.pick("cpu") == torch.device("cpu")


def test_the_best_device_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device.pick() == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device.pick() == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.pick() == torch.device("cuda")
    assert device.pick("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "", "tpu"])
def test_unknown_devices_list_the_known(name: str) -> None:
    with pytest.raises(ConjureError, match="no device") as caught:
        device.pick(name)
    assert "auto" in caught.value.hint
    assert "cpu" in caught.value.hint


def test_threads_are_those_of_torch() -> None:
    assert device.threads() == torch.get_num_threads()


@pytest.mark.parametrize(("features", "bfloat16"), [({}, "emulated"), ({"avx512_bf16": True}, "native")])
def test_dtype_support_reads_the_features(
    monkeypatch: pytest.MonkeyPatch, features: dict[str, bool], bfloat16: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    support = device.dtype_support()
    assert support["float32"] == "native"
    assert support["bfloat16"] == bfloat16
    assert list(support) == ["float32", "bfloat16", "float16", "int8"]


def test_every_supported_type_computes() -> None:
    for name, kind in device.dtype_support().items():
        if kind != "missing":
            one = torch.ones(2, 2, dtype=getattr(torch, name))
            assert (one + one).sum().item() == 8


def test_matmul_rate_is_measured_once() -> None:
    first = device.matmul_rate(torch.float32, seconds=0.0)
    assert first > 0
    assert device.matmul_rate("float32", seconds=0.0) == first
    with pytest.raises(ConjureError, match="floating-point"):
        device.matmul_rate("int8")


def test_memory_is_read_at_a_rate_that_is_measured_once() -> None:
    assert 1e8 < device.read_rate() < 1e13  # bytes/s, between a very slow machine and none there is
    assert device.read_rate() == device.read_rate()
