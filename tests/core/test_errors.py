from __future__ import annotations

from conjure.core.errors import ConjureError, nearest, suggest


def test_message_and_hint_are_apart_and_together() -> None:
    error = ConjureError("expected a, got b", hint="write a")
    assert (error.message, error.hint) == ("expected a, got b", "write a")
    assert str(error) == "expected a, got b\nhint: write a"


def test_without_hint_there_is_no_hint_line() -> None:
    assert str(ConjureError("expected a, got b")) == "expected a, got b"


def test_nearest_is_best_first_and_blind_to_case() -> None:
    assert nearest("Eulr", ["heun", "euler", "euler_ancestral"])[0] == "euler"
    assert nearest("EULER", ["heun", "euler"]) == ["euler"]
    assert nearest("zzzz", ["heun", "euler"]) == []
    assert nearest("muonn", ["Muon"]) == ["Muon"]


def test_suggest_names_one_or_lists_all() -> None:
    assert suggest("eulr", ["heun", "euler"]) == "did you mean 'euler'?"
    assert suggest("zzzz", ["heun", "euler"]) == "known: euler, heun"
    assert suggest("zzzz", []) == "there is none yet"
    assert suggest("zzzz", [f"name{i:02d}" for i in range(40)]).endswith("name29, ...")
