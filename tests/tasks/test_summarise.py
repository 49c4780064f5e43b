from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

import conjure
from conjure.core.errors import ConjureError
from tests.tasks.small_models import TEMPLATE, bart, decoder, t5

LONG = " ".join(["the sea was blue ."] * 20)


def document(folder: Path, *inputs: str, **options: Any) -> dict[str, Any]:
    out = folder.parent / "out.json"
    conjure.make(*inputs, task="summarise", model=str(folder), output=out, seed=1, **options)
    return json.loads(out.read_text())


def test_a_short_text_is_the_references_and_a_long_one_comes_in_parts(tmp_path: Path) -> None:
    folder = bart(tmp_path / "m")
    found = document(folder, "the sea was blue .", tokens=6, logprobs=True)
    ids = torch.tensor([conjure.load(folder).tokenizer.encode("the sea was blue .", special=True)])
    wanted = tf.BartForConditionalGeneration.from_pretrained(folder).generate(
        ids, do_sample=False, num_beams=1, max_new_tokens=6, min_length=0
    )
    assert [token["id"] for token in found["parts"][0]["tokens"]] == wanted[0, 1:].tolist()
    parts = document(folder, LONG, tokens=6)["parts"]
    assert len(parts) > 2 and sum(part["letters"] for part in parts) == len(LONG) - (len(parts) - 1)


def test_t5_has_its_prefix_and_settings_and_a_chat_its_instruction(tmp_path: Path) -> None:
    said = {"summarization": {"prefix": "summarize: ", "max_length": 24, "min_length": 5, "num_beams": 2}}
    part = document(t5(tmp_path / "m", task_specific_params=said), "the sea .")["parts"][0]
    assert 5 <= part["count"] <= 24
    chat = decoder(tmp_path / "chat", template=TEMPLATE)
    made = conjure.make("the sea was blue .", "Summarise it in one word", model=str(chat), tokens=3)
    assert made.record.task == "summarise"
    with pytest.raises(ConjureError, match="no text fits in beside a summary of 400"):
        document(chat, "the sea .", tokens=400)
    with pytest.raises(ConjureError, match="chat template"):
        document(decoder(tmp_path / "plain"), "the sea .", tokens=4)
