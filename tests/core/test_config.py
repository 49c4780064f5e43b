from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conjure.core.config import from_dict, load_yaml, override, to_dict
from conjure.core.errors import ConjureError


@dataclass(frozen=True, kw_only=True)
class Rope:
    base: float = 10_000.0
    scaling: Literal["none", "linear"] = "none"


@dataclass(frozen=True, kw_only=True)
class Model:
    dim: int
    heads: int = 4
    dropout: float | None = None
    kernel: tuple[int, int] = (3, 3)
    widths: tuple[int, ...] = ()
    rope: Rope = field(default_factory=Rope)
    extra: Rope | None = None
    name: str = ""
    tied: bool = True
    rates: dict[str, float] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    folder: Path = Path()
    size: int | str = 1

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ConjureError(
                f"expected dim divisible by heads, got {self.dim} / {self.heads}", hint="heads=4"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    model: Model
    seed: int = 0


def refused(data: Any, cls: type = Recipe) -> ConjureError:
    with pytest.raises(ConjureError) as caught:
        from_dict(cls, data)
    return caught.value


# -- from_dict --------------------------------------------------------------------------------------------


def test_nested_values_take_their_types() -> None:
    data = {"model": {"dim": 8, "dropout": 0, "kernel": [5, 7], "rope": {"base": 5}, "folder": "a/b"}}
    recipe = from_dict(Recipe, data)
    assert recipe == Recipe(
        model=Model(dim=8, dropout=0.0, kernel=(5, 7), rope=Rope(base=5.0), folder=Path("a/b"))
    )
    assert isinstance(recipe.model.dropout, float)
    assert isinstance(recipe.model.rope.base, float)


def test_unknown_key_names_path_and_nearest() -> None:
    error = refused({"model": {"dim": 8, "drpout": 0.1}})
    assert "`model.drpout`" in error.message
    assert error.hint == "did you mean 'dropout'?"
    assert "`model.rope.bass`" in refused({"model": {"dim": 8, "rope": {"bass": 1}}}).message


def test_unknown_key_inside_an_optional_dataclass_is_named() -> None:
    error = refused({"model": {"dim": 8, "extra": {"bass": 1}}})
    assert "`model.extra.bass`" in error.message


def test_missing_keys_are_listed() -> None:
    assert "missing `model`" in refused({}).message
    assert "missing `model.dim`" in refused({"model": {}}).message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("dim", "8", "model.dim: expected an integer, got '8'"),
        ("dim", 8.5, "model.dim: expected an integer, got 8.5"),
        ("dim", True, "model.dim: expected an integer, got true"),
        ("dim", None, "model.dim: expected an integer, got null"),
        ("dim", math.inf, "model.dim: expected an integer, got inf"),
        ("dim", math.nan, "model.dim: expected an integer, got nan"),
        ("dim", [8], "model.dim: expected an integer, got a list of 1"),
        ("dropout", "3e-4", "model.dropout: expected a number or null, got '3e-4'"),
        ("dropout", True, "model.dropout: expected a number or null, got true"),
        ("kernel", [3], "model.kernel: expected 2 values, got 1"),
        ("kernel", [3, "x"], "model.kernel[1]: expected an integer, got 'x'"),
        ("kernel", 3, "model.kernel: expected a list, got 3"),
        ("widths", "123", "model.widths: expected a list, got '123'"),
        ("tied", 1, "model.tied: expected true or false, got 1"),
        ("name", 5, "model.name: expected text, got 5"),
        ("rope", 5, "model.rope: expected keys and values, got 5"),
        ("rates", {"a": "b"}, "model.rates.a: expected a number, got 'b'"),
        ("rates", [1], "model.rates: expected keys and values, got a list of 1"),
        ("words", ["a", 1], "model.words[1]: expected text, got 1"),
        ("size", 1.5, "model.size: expected an integer or text, got 1.5"),
    ],
)
def test_wrong_types_are_refused_with_their_path(key: str, value: Any, expected: str) -> None:
    assert refused({"model": {"dim": 8, key: value}}).message == f"recipe: {expected}"


def test_literal_lists_the_choices_and_suggests() -> None:
    error = refused({"model": {"dim": 8, "rope": {"scaling": "liner"}}})
    assert error.message == "recipe: model.rope.scaling: expected one of 'none', 'linear', got 'liner'"
    assert error.hint == "did you mean 'linear'?"


def test_literal_does_not_take_one_for_true() -> None:
    @dataclass(frozen=True)
    class Switch:
        on: Literal[True]

    with pytest.raises(ConjureError):
        from_dict(Switch, {"on": 1})


def test_integral_floats_count_as_integers_and_others_do_not() -> None:
    assert from_dict(Recipe, load_yaml("model: {dim: 1e3}")).model.dim == 1000
    assert "got 1500.5" in refused(load_yaml("model: {dim: 1.5005e3}")).message


def test_union_keeps_the_type_that_came() -> None:
    assert from_dict(Model, {"dim": 4, "size": "5"}).size == "5"
    assert from_dict(Model, {"dim": 4, "size": 5}).size == 5
    assert from_dict(Model, {"dim": 4, "dropout": None}).dropout is None


def test_what_the_dataclass_refuses_carries_the_path() -> None:
    error = refused({"model": {"dim": 9}})
    assert error.message == "recipe: model: expected dim divisible by heads, got 9 / 4"
    assert error.hint == "heads=4"


def test_a_value_error_of_the_dataclass_becomes_ours() -> None:
    @dataclass(frozen=True)
    class Picky:
        x: int

        def __post_init__(self) -> None:
            raise ValueError("x is odd")

    with pytest.raises(ConjureError, match="somewhere: x is odd"):
        from_dict(Picky, {"x": 1}, where="somewhere")


def test_integers_beyond_floats_are_refused() -> None:
    assert "expected a number" in refused({"model": {"dim": 4, "rope": {"base": 10**400}}}).message


@pytest.mark.parametrize("data", [None, 5, "text", [1], [("dim", 1)]])
def test_what_is_no_mapping_is_refused(data: Any) -> None:
    assert "expected keys and values" in refused(data).message


_numbers = st.floats(allow_nan=False, allow_infinity=False)
_ropes = st.builds(Rope, base=_numbers, scaling=st.sampled_from(["none", "linear"]))
_models = st.builds(
    Model,
    dim=st.integers(0, 2**40).map(lambda n: 4 * n),
    heads=st.just(4),
    dropout=st.none() | _numbers,
    kernel=st.tuples(st.integers(), st.integers()),
    widths=st.lists(st.integers(), max_size=4).map(tuple),
    rope=_ropes,
    extra=st.none() | _ropes,
    name=st.text(max_size=9),
    tied=st.booleans(),
    rates=st.dictionaries(st.text(max_size=5), _numbers, max_size=3),
    words=st.lists(st.text(max_size=5), max_size=3),
    folder=st.sampled_from([Path("a"), Path("/b/c"), Path()]),
    size=st.integers() | st.text(max_size=5),
)


@settings(max_examples=40, deadline=None)
@given(_models)
def test_to_dict_and_back_through_json_and_yaml(model: Model) -> None:
    text = json.dumps(to_dict(model))
    assert from_dict(Model, json.loads(text)) == model
    assert from_dict(Model, load_yaml(text)) == model  # JSON is YAML 1.2


@settings(max_examples=40, deadline=None)
@given(_models, st.sampled_from([f.name for f in dataclasses.fields(Model)]), st.data())
def test_any_one_letter_slip_in_a_key_is_an_error(model: Model, key: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(key) - 1))
    slip = key[:at] + data.draw(st.sampled_from("qjy")) + key[at + 1 :]
    values = to_dict(model)
    values[slip] = values.pop(key)
    with pytest.raises(ConjureError, match="unknown key"):
        from_dict(Model, values)


def test_to_dict_refuses_what_is_not_plain() -> None:
    with pytest.raises(AssertionError):
        to_dict({"a": object()})


# -- YAML -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("3E-4", 3e-4),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1.5e+2", -150.0),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("12", 12),
        ("-12", -12),
        ("010", 10),
        ("0x1f", 31),
        ("0o17", 15),
        ("1_000", "1_000"),
        ("yes", "yes"),
        ("on", "on"),
        ("no", "no"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'12'", "12"),
        ('"3e-4"', "3e-4"),
        ("2024-01-01", "2024-01-01"),
        ("1:30", "1:30"),
        ("e5", "e5"),
        ("[1, 2.5, a]", [1, 2.5, "a"]),
        ("{b: 1}", {"b": 1}),
    ],
)
def test_yaml_scalars(text: str, value: Any) -> None:
    result = load_yaml(f"a: {text}\n")["a"]
    assert result == value
    assert type(result) is type(value)


def test_yaml_nan() -> None:
    assert math.isnan(load_yaml("a: .nan")["a"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2", "line 2, column 1: .*'a' stands twice"),
        ("m:\n  a: 1\n  b: 1\n  a: 2", "line 4, column 3: .*'a' stands twice"),
        ("1: a\n'1': b", "stands twice"),
        ("a: &x [1]\nb: *x", "alias"),
        ("a: !!python/object/apply:os.system ['true']", "tag"),
        ("a: !!python/name:os.system", "tag"),
        ("a: !!int '3'", "tag"),
        ("!mine {a: 1}", "tag"),
        ("a: [1", "no valid YAML"),
        ("a: b: c", "no valid YAML"),
        ("\tb: 1", "no valid YAML"),
        ("? [1]\n: 2", "a key is text"),
        ("null: 2", "a key is text"),
        ("- 1", "expected `key: value` lines, got a list of 1"),
        ("just text", "expected `key: value` lines, got 'just text'"),
        ("a: 1\n---\nb: 2", "no valid YAML"),
        ("a: \x00", "no valid YAML"),
        ("a: " + "[" * 500, "nested deeper than 64"),
        ("a: " + "{a: " * 500, "nested deeper than 64"),
        ("a: " + "9" * 5000, "1,000 digits"),
    ],
)
def test_yaml_that_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConjureError, match=problem):
        load_yaml(text)


def test_yaml_is_bounded() -> None:
    with pytest.raises(ConjureError, match="at most 4,194,304 characters of YAML, got 4,194,305"):
        load_yaml("a:\n" + "x" * ((4 << 20) - 2))


def test_an_alias_bomb_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    with pytest.raises(ConjureError, match="alias"):
        load_yaml("\n".join(lines))


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab:-[]{},&*!|>'\"#\n 1?%@\t~", max_size=60))
def test_any_text_is_values_or_our_error(text: str) -> None:
    try:
        result = load_yaml(text)
    except ConjureError:
        return
    assert isinstance(result, dict)


def test_yaml_from_files(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes("\ufeff# about: ä\nlr: 3e-4\n".encode())
    assert load_yaml(path) == load_yaml(str(path)) == {"lr": 3e-4}
    assert load_yaml("") == {}
    path.write_bytes(b"a: \xff")
    for bad in (path, tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConjureError):
            load_yaml(bad)


# -- override ---------------------------------------------------------------------------------------------


def test_override_nested_keys_and_leaves_the_original_alone() -> None:
    data = {"train": {"lr": 1.0, "steps": 5}, "betas": [0.9, 0.95]}
    result = override(
        data, ["train.lr=3e-4", "model.rope.base=5", "betas.1=0.99", "widths=[1, 2]", "name='7'"]
    )
    assert result == {
        "train": {"lr": 3e-4, "steps": 5},
        "betas": [0.9, 0.99],
        "model": {"rope": {"base": 5}},
        "widths": [1, 2],
        "name": "7",
    }
    assert data == {"train": {"lr": 1.0, "steps": 5}, "betas": [0.9, 0.95]}


def test_override_values_may_hold_equals_signs_and_nulls() -> None:
    assert override({"a": 1, "b": 2}, ["a=x=y", "b="]) == {"a": "x=y", "b": None}
    assert override({"a": None}, ["a.b=1"]) == {"a": {"b": 1}}


def test_later_overrides_win() -> None:
    assert override({}, ["a=1", "a=2"]) == {"a": 2}


def test_override_with_an_unknown_key_is_caught_by_the_check() -> None:
    error = refused(override({"model": {"dim": 8}}, ["model.hedas=2"]))
    assert "`model.hedas`" in error.message
    assert error.hint == "did you mean 'heads'?"


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("train.lr", "expected key=value"),
        ("=3", "expected key=value"),
        ("train..lr=3", "expected key=value"),
        ("train.lr.x=3", "train.lr is 1.0, it has no keys"),
        ("betas.2=1", "no place '2'"),
        ("betas.x=1", "no place 'x'"),
        ("betas.-1=1", "no place '-1'"),
        ("a=[1", "no valid YAML"),
        ("a=#fff", "comment"),
        ("a=!!python/name:os.system", "tag"),
    ],
)
def test_overrides_that_are_refused(assignment: str, problem: str) -> None:
    with pytest.raises(ConjureError, match=problem):
        override({"train": {"lr": 1.0}, "betas": [1, 2]}, [assignment])
