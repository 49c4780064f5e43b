from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

import conjure
from conjure.core.errors import ConjureError
from tests.tasks.small_models import encoder


def document(folder: Path, text: str, **options: Any) -> dict[str, Any]:
    out = folder.parent / "out.json"
    conjure.make(text, model=str(folder), output=out, **options)
    return json.loads(out.read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return encoder(tmp_path / "m", "ForMaskedLM")


@pytest.mark.parametrize("gap", ["[MASK]", "<mask>", "___", "______"])
def test_the_candidates_are_the_references(folder: Path, gap: str) -> None:
    found = document(folder, f"Alice wrote a {gap} in  Paris .", best=3)
    tokenizer = conjure.load(folder).tokenizer
    ids = tokenizer.encode("Alice wrote a <mask> in Paris .", special=True, special_in_text=True)
    logits = tf.RobertaForMaskedLM.from_pretrained(folder)(torch.tensor([ids])).logits[0, ids.index(tokenizer.mask)]
    p = logits.softmax(-1)
    p[sorted(tokenizer.specials)] = 0
    top = p.topk(3)
    assert [each["ids"] for each in found["fillings"]] == [[int(i)] for i in top.indices]
    assert [each["score"] for each in found["fillings"]] == pytest.approx(top.values.tolist(), rel=1e-4)
    assert found["text"] == f"Alice wrote a {tokenizer.token(int(top.indices[0]))} in  Paris ."


def test_several_gaps_and_refusals(folder: Path) -> None:
    found = document(folder, "___ wrote a ___ .", order="left", best=2)
    assert all(len(each["fillers"]) == 2 for each in found["fillings"])
    with pytest.raises(ConjureError, match="there is no gap"):
        document(folder, "Alice wrote .")
    with pytest.raises(ConjureError, match="reads at most 33 tokens, the text has 103"):
        document(folder, "red " * 100 + "___")
