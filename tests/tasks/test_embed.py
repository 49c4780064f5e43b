from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import conjure
from conjure.core.errors import ConjureError
from conjure.core.events import Warn
from tests.tasks.small_models import encoder


def test_vectors_and_a_table_of_similarities(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "m", "Model")
    ours = conjure.load(folder)
    one = ours.embed(["the sea"])
    assert json.loads(str(conjure.make("the sea", model=str(folder)))) == pytest.approx(one[0].tolist(), rel=1e-5)
    out = tmp_path / "out.json"
    conjure.make("the sea", "was blue", "the sea", task="embed", model=str(folder), output=out)
    found = json.loads(out.read_text())
    vectors = ours.embed(["the sea", "was blue", "the sea"])
    cosine = torch.nn.functional.cosine_similarity(vectors[0], vectors[1], dim=0)
    assert found["texts"] == ["the sea", "was blue", "the sea"] and len(found["vectors"][0]) == 32
    assert found["similarities"][0] == pytest.approx([1, float(cosine), 1], abs=1e-5)
    lines = found["text"].splitlines()
    assert len(lines) == 4 and lines[1].startswith("1  1.000") and lines[2].endswith("was blue")


def test_lines_and_long_texts(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "m", "Model")
    out, seen = tmp_path / "out.json", []
    conjure.make("the sea\n\nwas blue\n", model=str(folder), output=out, lines=True, on_event=seen.append)
    assert json.loads(out.read_text())["texts"] == ["the sea", "was blue"]
    assert not any(isinstance(event, Warn) for event in seen)
    conjure.make("red " * 99, model=str(folder), on_event=seen.append)
    assert any(isinstance(event, Warn) and "reads 33 tokens" in event.text for event in seen)
    with pytest.raises(ConjureError, match="cannot translate: it can embed"):
        conjure.make("the sea", task="translate", model=str(folder))
