"""Reading config.json of public models: one thing under many names, old and new spellings, defaults left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from conjure.core.errors import ConjureError
from conjure.nn.feedforward import Activation
from conjure.nn.position import Rope
from conjure.nn.rope_scaling import RopeScaling, yarn_gain

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python": "gelu",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu2": "relu2",
    "silu": "silu",
    "swish": "silu",
}


class Settings:
    """config.json with defaults below it. Values are asked for by any of their names and come checked."""

    def __init__(self, values: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        self.values = {**(defaults or {}), **values}

    def get(self, *names: str, default: Any = None) -> Any:
        """The first of these that is there and not null."""
        return next((self.values[name] for name in names if self.values.get(name) is not None), default)

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def integer(self, *names: str, default: int | None = None, least: int = 1, most: int = 1 << 31) -> int:
        value = self.get(*names, default=default)
        if value is None:
            raise ConjureError(f"config.json: expected {' or '.join(names)}, there is none of them")
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            wanted = f"a whole number from {least} to {most}"
            raise ConjureError(f"config.json: {names[0]}: expected {wanted}, got {value!r}")
        return value

    def number(self, *names: str, default: float) -> float:
        value = self.get(*names, default=default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConjureError(f"config.json: {names[0]}: expected a number, got {value!r}")
        return float(value)

    def flag(self, *names: str, default: bool) -> bool:
        value = self.get(*names, default=default)
        if not isinstance(value, bool):
            raise ConjureError(f"config.json: {names[0]}: expected true or false, got {value!r}")
        return value

    def activation(self, *names: str, default: str = "gelu") -> Activation:
        value = self.get(*names, default=default)
        if value not in ACTIVATIONS:
            raise ConjureError(f"config.json: {names[0]}: unknown activation {value!r}",
                               hint=f"known: {list(ACTIVATIONS)}")
        return ACTIVATIONS[value]

    def part(self, name: str, defaults: Mapping[str, Any] | None = None) -> Settings:
        """A config inside the config."""
        inner = self.get(name, default={})
        if not isinstance(inner, Mapping):
            raise ConjureError(f"config.json: {name}: expected keys and values, got {inner!r}")
        return Settings(cast("Mapping[str, Any]", inner), defaults)

    # ------------------------------------------------------------------------------------------------ rotary positions
    def rope(
        self, width: int, *, theta: float = 10_000.0, interleaved: bool = False, layers: str = "", partial: float = 1.0
    ) -> Rope:
        """`rope_parameters` (new) or `rope_theta` and `rope_scaling` (old), for heads of `width` values; `layers` is
        the kind of layers ("full_attention") where kinds differ."""
        new = self.get("rope_parameters", default={})
        new = new.get(layers, {} if layers and any(isinstance(v, Mapping) for v in new.values()) else new)
        old = self.get("rope_scaling", default={})
        said = Settings({**old, **new})
        share = said.number("partial_rotary_factor", default=self.number("partial_rotary_factor", default=partial))
        base = said.number("rope_theta", default=self.number("rope_theta", default=theta))
        return Rope(dim=int(width * share), theta=base, interleaved=interleaved, scaling=self._scaling(said))

    def _scaling(self, said: Settings) -> RopeScaling | None:
        kind = said.get("rope_type", "type", default="default")
        if kind == "default":
            return None
        most = self.integer("max_position_embeddings", default=2048)
        original = said.integer("original_max_position_embeddings",
                                default=self.integer("original_max_position_embeddings", default=most))
        factor = said.number("factor", default=most / original)
        if kind == "linear":
            return RopeScaling(kind="linear", factor=factor)
        if kind == "dynamic":
            return RopeScaling(kind="dynamic", factor=factor, original=original)
        if kind == "llama3":
            return RopeScaling(kind="llama3", factor=factor, original=original,
                               low=said.number("low_freq_factor", default=1),
                               high=said.number("high_freq_factor", default=4))
        if kind == "yarn" and not said.has("long_factor"):
            return _yarn(said, factor, original)
        if kind in ("longrope", "su", "yarn"):
            gain = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
            return RopeScaling(kind="longrope", original=original, gain=said.number("attention_factor", default=gain),
                               short=tuple(said.get("short_factor")), long=tuple(said.get("long_factor")))
        raise ConjureError(f"config.json: unknown kind of rotary positions {kind!r}",
                           hint="known: default, linear, dynamic, llama3, yarn, longrope")


def _yarn(said: Settings, factor: float, original: int) -> RopeScaling:
    gain = yarn_gain(factor)
    if said.has("mscale") and said.has("mscale_all_dim"):
        gain = yarn_gain(factor, said.number("mscale", default=1)) / yarn_gain(
            factor, said.number("mscale_all_dim", default=1)
        )
    return RopeScaling(
        kind="yarn", factor=factor, original=original, gain=said.number("attention_factor", default=gain),
        low=said.number("beta_slow", default=1), high=said.number("beta_fast", default=32),
        rounded=said.flag("truncate", default=True),
    )  # fmt: skip
