from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

import conjure
from conjure.core.errors import ConjureError
from tests.tasks.small_models import decoder, encoder

TEXT = "Alice wrote a good letter in Paris ."


def document(folder: Path, text: str = TEXT, **options: Any) -> dict[str, Any]:
    out = folder.parent / "out.json"
    conjure.make(text, task="classify", model=str(folder), output=out, **options)
    return json.loads(out.read_text())


def test_a_classifier_gives_the_references_probabilities(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "m", "ForSequenceClassification", ["bad", "good", "so so"])
    found = {each["label"]: each["score"] for each in document(folder)["labels"]}
    ids = torch.tensor([conjure.load(folder).tokenizer.encode(TEXT, special=True)])
    wanted = tf.RobertaForSequenceClassification.from_pretrained(folder)(ids).logits[0].softmax(-1).tolist()
    assert found == pytest.approx(dict(zip(["bad", "good", "so so"], wanted)), rel=1e-4)
    assert str(conjure.make(TEXT, model=str(folder))).count("\n") == 2
    with pytest.raises(ConjureError, match="knows its own labels only: bad, good, so so"):
        document(folder, labels="sport,politics")


def test_all_of_a_long_text_counts(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "m", "ForSequenceClassification", ["bad", "good"])
    ours = conjure.load(folder)
    text = " ".join(f"w{i % 60}" for i in range(70))
    ids = ours.tokenizer.encode(text)
    room = ours.context - 2
    parts = [ids[at : at + room] for at in range(0, len(ids), room)]
    each = torch.stack([ours.logits([[1, *part, 2]])[0].softmax(-1) for part in parts])
    wanted = (each * torch.tensor([[len(part)] for part in parts])).sum(0) / len(ids)
    found = {each["label"]: each["score"] for each in document(folder, text)["labels"]}
    assert len(parts) > 2 and found == pytest.approx(dict(zip(["bad", "good"], wanted.tolist())), rel=1e-4)


def test_labels_of_ones_own_by_entailment(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "m", "ForSequenceClassification", ["CONTRADICTION", "NEUTRAL", "ENTAILMENT"])
    model, tokenizer = tf.RobertaForSequenceClassification.from_pretrained(folder), conjure.load(folder).tokenizer
    rows = [tokenizer.encode_pair(TEXT, f"it is {label} .")[0] for label in ("sport", "politics")]
    logits = torch.stack([model(torch.tensor([row])).logits[0] for row in rows])
    for several in (False, True):
        found = document(folder, labels="sport,politics", hypothesis="it is {} .", several=several)["labels"]
        wanted = logits[:, [0, 2]].softmax(-1)[:, 1] if several else logits[:, 2].softmax(0)
        scores = {each["label"]: each["score"] for each in found}
        assert scores == pytest.approx(dict(zip(["sport", "politics"], wanted.tolist())), rel=1e-4)
    with pytest.raises(ConjureError, match=r"expected \{\} where the label goes"):
        document(folder, labels="sport,politics", hypothesis="it is")
    with pytest.raises(ConjureError, match="different labels"):
        document(folder, labels="sport,,")


def test_labels_of_ones_own_by_likelihood(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "m")
    found = document(folder, labels="sport,politics")["labels"]
    assert sum(each["score"] for each in found) == pytest.approx(1)
    ours = conjure.load(folder)
    question = "\nWhich of these is it: sport, politics?\nAnswer:"
    gains, encode = [], ours.tokenizer.encode
    for label in ("sport", "politics"):
        own, none = (
            float(ours.logits([encode(said + question)])[0, -1].log_softmax(-1)[ours.tokenizer.id(label)])
            for said in (TEXT, "")
        )  # fmt: skip
        gains.append(own - none)
    wanted = torch.tensor(gains).softmax(0).tolist()
    assert {e["label"]: e["score"] for e in found} == pytest.approx(dict(zip(["sport", "politics"], wanted)), rel=1e-3)
    with pytest.raises(ConjureError, match="no labels of its own"):
        document(folder)


def test_spans_have_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["O", "B-PER", "I-PER", "B-LOC"]
    folder = encoder(tmp_path / "m", "ForTokenClassification", names)
    ours = conjure.load(folder)
    text = " ".join(["red Alice wrote ."] + ["the sea was blue ."] * 14 + ["Paris"])
    ids = ours.tokenizer.encode(text)
    wanted = {"Alice": 1, "wrote": 2, "Paris": 3}
    meant = {ours.tokenizer.id(word): label for word, label in wanted.items()}

    def judged(self: Any, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.tensor([[[9.0 * (n == meant.get(int(i), 0)) for n in range(4)] for i in row] for row in input_ids])

    monkeypatch.setattr(type(ours), "logits", judged)
    spans = document(folder, text)["spans"]
    assert len(ids) > 2 * ours.context
    assert [(each["label"], each["text"]) for each in spans] == [("PER", "Alice wrote"), ("LOC", "Paris")]
    assert all(text[each["start"] : each["end"]] == each["text"] and each["score"] > 0.99 for each in spans)
    with pytest.raises(ConjureError, match="its own labels only"):
        document(folder, labels="a,b")
