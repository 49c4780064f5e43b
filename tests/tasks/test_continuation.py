from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers as tf

import conjure
from conjure.codecs.tokenizer import train_bpe
from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Warn
from conjure.models.language import LanguageModel
from conjure.tasks.make import plan
from tests.models.public import gguf_writing
from tests.models.public.references import randomised, saved
from tests.tasks.small_models import TEMPLATE, decoder, encoder, marian, t5

PROMPT = "the sea was"


def document(folder: Path, prompt: str = PROMPT, **options: Any) -> dict[str, Any]:
    out = folder.parent / "out.json"
    conjure.make(prompt, model=str(folder), output=out, seed=1, **options)
    return json.loads(out.read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return decoder(tmp_path / "m")


def test_greedy_text_is_the_references_and_comes_in_pieces(folder: Path) -> None:
    found = document(folder, tokens=8, logprobs=True, alternatives=2)
    ours = conjure.load(folder)
    ids = torch.tensor([ours.tokenizer.encode(PROMPT)])
    wanted = tf.LlamaForCausalLM.from_pretrained(folder).generate(ids, do_sample=False, max_new_tokens=8)
    assert [token["id"] for token in found["tokens"]] == wanted[0, ids.shape[1] :].tolist()
    assert all(token["logprob"] <= 0 and len(token["alternatives"]) == 2 for token in found["tokens"])
    assert found["text"] == PROMPT + found["written"] and found["seconds"] >= 0
    pieces: list[str] = []
    whole = conjure.make(PROMPT, model=str(folder), tokens=8, seed=1,
                         on_event=lambda event: pieces.append(event.text) if isinstance(event, Delta) else None)
    assert "".join(pieces) == str(whole) == found["text"] and len(pieces) > 2


def test_each_seed_its_text_and_its_file(folder: Path) -> None:
    out = folder.parent / "out.json"
    made = conjure.make(PROMPT, model=str(folder), output=out, seed=5, count=2, temperature=3, tokens=8)
    alone = conjure.make(PROMPT, model=str(folder), seed=6, temperature=3, tokens=8)
    assert str(made[1]) == str(alone) != str(made[0])
    assert [json.loads((out.parent / f"out-{k}.json").read_text())["seed"] for k in (1, 2)] == [5, 6]
    assert str(conjure.make(PROMPT, model=str(folder), tokens=8, temperature=0)) == document(folder, tokens=8)["text"]
    assert len(document(folder, tokens=4, beams=3, best=2)["answers"]) == 2


def test_a_file_is_made_again_and_weights_are_passed_through(folder: Path) -> None:
    first = document(folder, tokens=4)
    again = json.loads(str(conjure.remake(folder.parent / "out.json")))
    assert {**first, "seconds": 0} == {**again, "seconds": 0}
    for weights in ("bf16", "auto"):
        assert document(folder, tokens=4, weights=weights)["count"] <= 4
    known = "fp32, bf16, int8, int4, auto, or none"
    with pytest.raises(ConjureError, match=f"--weights: expected one of {known}, got 'fp64'"):
        document(folder, weights="fp64")


def byte_level(folder: Path) -> None:
    """The same shape with tokens that are bytes, as grammars need them."""
    train_bpe(["the sea was red"], 258).save(folder)
    sizes = {"vocab_size": 258, "bos_token_id": 0, "eos_token_id": 0}
    config = json.loads((folder / "config.json").read_text()) | sizes
    saved(randomised(tf.LlamaForCausalLM(tf.LlamaConfig(**config))), folder)


def test_a_schema_is_kept_to_and_bad_ones_are_refused(folder: Path, tmp_path: Path) -> None:
    byte_level(folder)
    assert document(folder, regex="(red|blue)", tokens=9)["written"] in ("red", "blue")
    (tmp_path / "enum.json").write_text('{"enum": [12, 34]}')
    assert json.loads(document(folder, schema=str(tmp_path / "enum.json"), tokens=9)["written"]) in (12, 34)
    (tmp_path / "s.json").write_text('{"type": "integer", "minimum": 3, "maximum": 1}')
    with pytest.raises(ConjureError, match="JSON schema"):
        document(folder, schema=str(tmp_path / "s.json"))
    with pytest.raises(ConjureError, match="no such file"):
        document(folder, schema=str(tmp_path / "none.json"))
    with pytest.raises(ConjureError, match="can keep to one of them"):
        document(folder, regex="a", schema="{}")


def test_what_cannot_be_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="reads at most 256 tokens, the prompt has 300"):
        document(folder, "red " * 300)
    with pytest.raises(ConjureError, match="ID=VALUE"):
        document(folder, logit_bias=("red",))
    with pytest.raises(ConjureError, match="cannot fill: it can continue") as caught:
        document(folder, "a ___", task="fill")
    assert caught.value.hint == "--task continue"
    with pytest.raises(ConjureError, match="unknown model"):
        document(tmp_path / "none")
    with pytest.raises(ConjureError, match="to summarise takes a model"):
        plan("x", task="summarise")


def test_a_chat_needs_a_template(tmp_path: Path) -> None:
    chat = decoder(tmp_path / "chat", template=TEMPLATE)
    assert document(chat, task="chat", tokens=4, system="good")["task"] == "chat"
    assert plan("it is red", "who wrote it ?", model=str(chat)).edges[0].task == "chat"
    assert plan("it is red", model=str(chat)).edges[0].task == "continue"
    assert document(t5(tmp_path / "t5"), tokens=4)["task"] == "chat"
    with pytest.raises(ConjureError, match="expected a model with a chat template"):
        document(decoder(tmp_path / "plain"), task="chat")
    endless = "{% for a in range(99999999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}"
    looping = decoder(tmp_path / "loop", template=endless)
    with pytest.raises(ConjureError):
        document(looping, task="chat")


def test_the_task_follows_from_the_model(tmp_path: Path) -> None:
    for made, task in (
        (encoder(tmp_path / "a", "ForMaskedLM"), "fill"), (encoder(tmp_path / "c", "ForQuestionAnswering"), "answer"),
        (encoder(tmp_path / "d", "Model"), "embed"), (marian(tmp_path / "b"), "translate"),
        (decoder(tmp_path / "e"), "continue"),
    ):  # fmt: skip
        assert plan("x", model=str(made)).edges[0].task == task
        assert isinstance(conjure.load(made), LanguageModel)


def test_an_unknown_family_names_the_nearest(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "lama"}))
    with pytest.raises(ConjureError, match="'lama' cannot be run yet"):
        plan("x", model=str(folder))


def test_a_constrained_text_that_ends_too_early_is_said(folder: Path) -> None:
    byte_level(folder)
    said: list[str] = []
    for tokens in (1, 40):
        conjure.make(PROMPT, model=str(folder), tokens=tokens, seed=1, regex="(the sea){3}",
                     on_event=lambda event: said.append(event.text) if isinstance(event, Warn) else None)
    assert len(said) == 1 and "not whole" in said[0] and "--tokens" in said[0]


def test_what_was_read_is_kept_and_gives_the_same_text(folder: Path, tmp_path: Path) -> None:
    prompt, kept = "the sea was blue and red " * 8, tmp_path / "kept"
    plain = str(conjure.make(prompt, model=str(folder), tokens=6, seed=1))
    for weights in (None, "int8"):
        first, again = (document(folder, prompt, tokens=6, weights=weights, prompt_cache=str(kept)) for _ in range(2))
        assert first["text"] == again["text"]
        assert first["text"] == plain or weights
    assert len(list(kept.iterdir())) == 2, "a state for each type that the weights are held in"


def test_a_gguf_file_writes_as_the_folder_it_was_made_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the tokenizer that the file itself holds."""
    monkeypatch.setitem(gguf_writing.MODELS, "llama", ("Llama", {**gguf_writing.LL, "vocab_size": 300}))
    network, tensors = gguf_writing.build("llama", tmp_path / "hub")
    model = json.loads(train_bpe(["the sea was blue and the letter was red"] * 3, 270).backend.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)

    def tokens(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list([*pieces, *(f"[{i}]" for i in range(len(pieces), 300))])
        writer.add_token_types([1] * 300)
        writer.add_token_merges([" ".join(pair) for pair in model["merges"]])

    path = gguf_writing.write(tmp_path / "m.gguf", "llama", network, tensors, more=tokens)
    text = str(conjure.make(PROMPT, model=str(path), tokens=6, seed=1, temperature=0))
    ours = conjure.load(path)
    ids = torch.tensor([ours.tokenizer.encode(PROMPT, special=True)])
    wanted = network.generate(ids, do_sample=False, max_new_tokens=6, pad_token_id=0)[0, ids.shape[1] :].tolist()
    assert text == PROMPT + ours.tokenizer.decode(wanted)
