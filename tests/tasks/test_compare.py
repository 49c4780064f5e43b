from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conjure import make
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Warn
from conjure.core.provenance import digest
from conjure.media.image import decode
from conjure.metrics.measured import Measured
from conjure.tasks import compare as module
from conjure.tasks.compare import METRICS, Outcome, Sample, Wish, apart, compare, here, pixel_features, settled
from tests.conftest import write_model
from tests.stand_ins import Daub, DaubOptions

WISH = Wish(inputs=("a cat",), seed=5, count=3)


def test_every_system_gets_the_same(workshop: Path) -> None:
    write_model(Path("other"), task="draw", value=2.0)
    told: list[Event] = []
    made = compare(WISH, ["starter/daub", "./other"], on_event=told.append, run=here)
    for each in made.outcomes:
        pictures = [decode(data, "it").pixels for data in each.pictures]
        assert [int(picture[0, 0, 0]) for picture in pictures] == [5, 6, 7] == list(made.seeds)
        assert each.facts["parameters"] == 1 and each.facts["licence"] == "CC0-1.0" and each.facts["task"] == "draw"
        assert each.facts["seconds"] >= 0 and each.facts["peak_memory_bytes"] > 10**6
        assert each.facts["sizes"] == [[13, 8]] * 3 and each.error == ""
    first, second = made.outcomes
    assert first.facts["weights"] != second.facts["weights"]
    systems = [(event.step, event.note) for event in told if isinstance(event, Progress) and event.unit == "system"]
    assert systems == [(0, "starter/daub"), (1, "./other"), (2, "done")]
    assert any(isinstance(event, Progress) and event.unit == "step" for event in told)


def test_the_json_beside_has_everything_but_the_pixels(workshop: Path) -> None:
    made = compare(WISH, ["starter/daub"], run=here)
    plain = json.loads(json.dumps(made.plain()))
    (system,) = plain["systems"]
    assert plain["seeds"] == [5, 6, 7] and plain["inputs"] == ["a cat"] and "CPUs" in plain["machine"]
    assert system["pictures"] == [digest(data) for data in made.outcomes[0].pictures]
    assert set(system["metrics"]["spread"]) == {"value", "low", "high", "n", "protocol"}


def test_one_that_fails_does_not_stop_the_others(workshop: Path) -> None:
    write_model(Path("broken"), task="draw")
    Path("broken/model.safetensors").write_bytes(b"nothing")
    told: list[Event] = []
    made = compare(WISH, ["starter/parrot", "broken", "starter/daub"], on_event=told.append, run=here)
    words, broken, fine = made.outcomes
    assert "expected one for draw" in words.error and "not a whole safetensors file" in broken.error
    assert words.pictures == broken.pictures == () and words.metrics == {} and len(fine.pictures) == 3
    assert words.facts["licence"] == "CC0-1.0"
    assert [event.text.partition(":")[0] for event in told if isinstance(event, Warn)] == ["starter/parrot", "broken"]


def test_nothing_to_show_and_names_that_are_wrong(workshop: Path) -> None:
    with pytest.raises(ConjureError, match=r"no system made a picture\. starter/parrot: "):
        compare(WISH, ["starter/parrot"], run=here)
    with pytest.raises(ConjureError, match="unknown model 'starter/dab'"):
        compare(WISH, ["starter/daub", "starter/dab"], run=here)
    with pytest.raises(ConjureError, match="named twice"):
        compare(WISH, ["starter/daub", "starter/daub"], run=here)
    with pytest.raises(ConjureError, match="nothing to compare"):
        compare(WISH, [], run=here)


def test_knobs_go_where_they_are_known(workshop: Path) -> None:
    wish = Wish(inputs=("a cat",), options={"guidance": "3", "strength": "0.5"})
    planned, notes = settled(wish, "starter/daub")
    assert planned.options == DaubOptions(guidance=3.0) and notes == ["has no --strength"]
    with pytest.raises(ConjureError, match="--guidance: expected a number"):
        settled(Wish(inputs=("a cat",), options={"guidance": "much"}), "starter/daub")


@pytest.mark.parametrize(
    ("options", "budget", "steps"), [({}, 9, 9), ({"guidance": "2"}, 9, 4), ({"sampler": "heun"}, 9, 5)]
)
def test_the_budget_becomes_steps(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], budget: int, steps: int
) -> None:
    def costs(folder: Path, options: DaubOptions, count: int) -> dict[str, Any]:
        evaluations = 2 * options.steps - 1 if options.sampler == "heun" else options.steps
        return {"evaluations": evaluations * (1 if options.guidance == 1 else 2)}

    monkeypatch.setattr(Daub, "forecast", staticmethod(costs))
    planned, notes = settled(Wish(inputs=("a cat",), evaluations=budget, options=options), "starter/daub")
    assert (planned.options.steps, notes) == (steps, [])


def test_a_budget_that_cannot_be_kept(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned, notes = settled(Wish(inputs=("a cat",), evaluations=7), "starter/daub")
    assert planned.options.steps == 7 and notes == ["makes no forecast: the budget went into --steps"]
    monkeypatch.setattr(Daub, "forecast", staticmethod(lambda folder, options, count: {"evaluations": 50}))
    planned, notes = settled(Wish(inputs=("a cat",), evaluations=7), "starter/daub")
    assert planned.options.steps == 1 and notes == ["one step takes 50 evaluations, over the budget of 7"]


def test_metrics_are_functions_of_features(workshop: Path) -> None:
    apart_ = Sample(inputs=("x",), features_NF=np.array([[0.0, 0], [3, 4], [0, 0]]))
    found = METRICS["spread"](apart_)
    assert isinstance(found, Measured)
    assert (found.value, found.low, found.high) == (pytest.approx(10 / 3), 0, 5)
    assert METRICS["spread"](Sample(inputs=("x",), features_NF=np.zeros((1, 2)))) is None
    assert METRICS["frechet"](apart_) is None

    def grey(images_NHWC: np.ndarray) -> np.ndarray:
        return images_NHWC.reshape(len(images_NHWC), -1)[:, :2].astype(np.float32)

    reference = np.stack([np.arange(20.0), np.arange(20.0)], 1)
    wish = Wish(inputs=("a cat",), seed=0, count=20)
    made = compare(wish, ["starter/daub"], features=grey, protocol="grey", reference_MF=reference, run=here)
    metrics = made.outcomes[0].metrics
    assert set(metrics) == set(METRICS) and made.features == "grey"
    assert metrics["frechet"]["value"] == pytest.approx(0, abs=1e-9)
    assert metrics["precision"]["value"] == metrics["recall"]["value"] == 1
    assert "; grey" in metrics["frechet"]["protocol"] and metrics["frechet"]["n"] == 20


def test_pixels_as_features() -> None:
    white, black = np.full((1, 40, 20, 3), 255, np.uint8), np.zeros((1, 8, 8, 3), np.uint8)
    assert pixel_features(white).shape == (1, 768) and pixel_features(white).min() == 1
    assert pixel_features(black).max() == 0


def test_a_process_of_its_own_makes_the_same_picture() -> None:
    wish = Wish(inputs=("a red apple",), seed=3, count=1, options={"steps": "1"})
    told: list[Event] = []
    came = apart(wish, "starter/pictograms", told.append)
    assert came.error == "" and Progress(1, 1, "step") in told
    expected = make("a red apple", to="image", model="starter/pictograms", seed=3, steps=1)
    assert np.array_equal(decode(came.pictures[0], "it").pixels, expected.pixels)
    assert came.facts["peak_memory_bytes"] > 10**8 and came.facts["evaluations"] == 1
    words = apart(wish, "starter/story", told.append)
    assert "expected one for draw" in words.error and "starter/pictograms" in words.hint


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("kill -9 $$", "its process was killed: most likely there was not enough memory"),
        ("echo no such thing >&2; exit 3", "its process ended with exit code 3: no such thing"),
        ("kill -SEGV $$", "its process ended with signal SIGSEGV"),
    ],
)
def test_a_process_that_ends_early(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, script: str, error: str
) -> None:
    python = Path("python")
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(python.resolve()))
    came = apart(WISH, "starter/daub", lambda event: None)
    assert came == Outcome(name="starter/daub", facts=module._about("starter/daub"), error=error)
