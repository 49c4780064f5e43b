from __future__ import annotations

import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import evaluations
from benchmarks.curves import HEIGHT, TOP, WIDTH, Panel, Point, svg
from conjure.core.config import from_dict
from conjure.core.errors import ConjureError
from conjure.models.pixel_denoiser import PixelDenoiser, PixelDiffusionConfig
from conjure.tasks.pixel_diffusion import PixelData, SamplePixels
from tests.data.handwriting import write_mnist

SVG = "{http://www.w3.org/2000/svg}"


def test_points_lie_where_the_logarithm_puts_them() -> None:
    line = [Point(x, 100 / x, 80 / x, 120 / x) for x in (1, 10, 100)]
    tree = ElementTree.fromstring(svg([Panel("a < b", {"one": line}, floor=0.5)], ticks=[1, 10, 100], x="n", y="d"))
    (curve,) = tree.iter(f"{SVG}polyline")
    (x0, y0), (x1, y1), (x2, y2) = [tuple(map(float, pair.split(","))) for pair in curve.attrib["points"].split()]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y1 - y0 == pytest.approx(y2 - y1, abs=0.2)
    assert 0 < x0 < x2 < WIDTH and TOP < y0 < y2 < TOP + HEIGHT, "further to the right and further down"
    texts = [each.text for each in tree.iter(f"{SVG}text")]
    assert {"one", "a < b", "n", "d", "1", "10", "100", "50"} <= set(texts)


def test_a_model_is_measured_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mnist(tmp_path / "mnist", 100)
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path))
    unet = {"channels": 49, "channels_out": 49, "widths": [8], "residuals": 1, "depth": [0], "heads": [2],
            "middle": None, "context": 0, "classes": 11, "groups": 4}  # fmt: skip
    config = from_dict(PixelDiffusionConfig, {"unet": unet, "patch": 7, "edm": {}})
    SamplePixels(PixelDenoiser(config), PixelData()).save(tmp_path / "tiny")
    output = tmp_path / "curve.svg"
    evaluations.main([str(tmp_path / "tiny"), "--quick", "--samplers", "euler,heun", "-o", str(output)])
    said = capsys.readouterr().out
    assert "| tiny, DDIM = Euler" in said and "| tiny, training pictures" in said and "5 evaluations" in said
    saved = json.loads(output.with_suffix(".json").read_text())
    rows = saved["models"]["tiny"]
    assert [(row["sampler"], row["spent"], row["steps"]) for row in rows] == [
        ("euler", 3, 3), ("euler", 5, 5), ("heun", 3, 2), ("heun", 5, 3)
    ]  # fmt: skip
    assert all(0 < row["low"] <= row["value"] <= row["high"] and math.isfinite(row["high"]) for row in rows)
    assert rows[0]["value"] > saved["training_pictures"]["tiny"]["value"], "a new network draws noise"
    assert "features-mnist" in saved["protocol"]
    assert len(re.findall("<polyline", output.read_text())) == 2
    with pytest.raises(ConjureError, match=r"expected a \.svg file"):
        evaluations.main([str(tmp_path / "tiny"), "-o", "curve.png"])
