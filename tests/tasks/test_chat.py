"""A small model taught to answer, starting from another's weights."""

from __future__ import annotations

import json
from pathlib import Path

import jinja2
import pytest
import torch

from conjure.codecs.tokenizer import train_bpe
from conjure.core.config import to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Result
from conjure.data.exercises import tools_line
from conjure.data.packing import IGNORED
from conjure.media.text import Text
from conjure.models.folder import read_config, save_weights, write_config
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.position import Rope
from conjure.tasks import chat
from conjure.tasks.chat import ASSISTANT, SYSTEM, TEMPLATE, USER, Chat, ChatData, ChatModel, ChatOptions

CONFIG = TransformerConfig(vocab=280, dim=16, layers=1, heads=2, rope=Rope(dim=8))


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CONJURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(chat, "HELD_OUT", 2)
    folder = tmp_path / "data" / "asked"
    folder.mkdir(parents=True)
    rows = [{"instruction": f"Name number {i}.", "input": "", "output": f"It is {i}."} for i in range(60)]
    (folder / "instruction-data.json").write_text(json.dumps(rows))
    start = tmp_path / "start"
    torch.manual_seed(0)
    network = Transformer(CONFIG)
    tokenizer = train_bpe(["the quick brown fox jumps over what is the word of a list " * 9], 280)
    write_config(start, kind="transformer", task="text_to_text", network=network, sections={"model": to_dict(CONFIG)})
    save_weights(start, "model", network)
    tokenizer.save(start)
    return tmp_path


@pytest.fixture
def task(places: Path) -> Chat:
    data = ChatData(sets=("asked",), length=128)
    return Chat.create(ChatModel(start=str(places / "start")), data, seed=1)


def test_it_begins_with_the_weights_of_another(task: Chat, places: Path) -> None:
    assert task.network.config.vocab == 283 == task.tokenizer.size
    assert [task.tokenizer.token(i) for i in (280, 281, 282)] == [SYSTEM, USER, ASSISTANT]
    old = Transformer(CONFIG)
    from conjure.models.folder import load_weights

    load_weights(old, places / "start" / "model.safetensors")
    new = task.network.state_dict()
    for name, tensor in old.state_dict().items():
        assert torch.equal(new[name][: len(tensor)], tensor)
    rows = new["embed.weight"][280:]
    assert torch.isfinite(rows).all() and not torch.equal(rows[0], rows[1])


def test_rows_carry_loss_on_answers_alone(task: Chat) -> None:
    batch = task.batch(range(8))
    assert batch["ids"].shape == (8, 128) and "documents" in batch
    assert torch.equal(task.batch([5])["ids"][0], batch["ids"][5])
    turns = task.turns
    for ids, targets in zip(batch["ids"].tolist(), batch["targets"].tolist(), strict=True):
        answering = False
        for token, target in zip(ids, targets, strict=True):
            if token in (turns.user, turns.system):
                answering = False
            if token == turns.assistant:
                answering = True
            if target != IGNORED:
                assert answering
            if target == turns.end:
                answering = False
    assert 0.1 < (batch["targets"] != IGNORED).float().mean() < 0.8


def test_the_template_renders_what_was_trained(task: Chat) -> None:
    template = jinja2.Environment().from_string(TEMPLATE)
    messages = [{"role": "user", "content": "What is the word?"}]
    task.tokenizer.backend.encode_special_tokens = False

    def ids(**given: object) -> list[int]:
        text = template.render(messages=messages, add_generation_prompt=True, **given)
        return task.tokenizer.backend.encode(text, add_special_tokens=False).ids

    found = ids()
    task.tokenizer.backend.encode_special_tokens = True
    assert found == task._start("", "What is the word?")
    tools = [{"function": {"name": "add", "parameters": {"properties": {"a": {}, "b": {}}}}}]
    task.tokenizer.backend.encode_special_tokens = False
    found = ids(tools=tools)
    task.tokenizer.backend.encode_special_tokens = True
    assert found == task._start(tools_line([("add", ("a", "b"))]), "What is the word?")


def learnt(task: Chat, steps: int) -> Chat:
    optimizer = torch.optim.AdamW(task.network.parameters(), lr=1e-2)
    for step in range(steps):
        total, count = task.loss(task.batch(range(4 * step, 4 * step + 4)))
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    return task


def test_learnt_saved_loaded_and_measured(
    task: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = task.evaluate(8)
    learnt(task, 30)
    after = task.evaluate(8)
    assert list(after) == ["bits_per_byte", "loss"] and after["loss"] < 0.8 * before["loss"]
    task.save(tmp_path / "model")
    assert read_config(tmp_path / "model")["task"] == "chat"
    assert (tmp_path / "model" / "chat_template.jinja").read_text() == TEMPLATE
    loaded = Chat.load(tmp_path / "model")
    monkeypatch.setattr(chat, "answer_figures", lambda *given: chat_figures(*given))
    figures = loaded.evaluate_published()
    assert figures["exact_match"]["n"] == 30 and 0 <= figures["exact_match"]["value"] <= 1
    assert figures["addition: exact_match"]["n"] == 1
    assert figures["instructions: word_f1"]["n"] > 1
    fact = figures["instructions: bits_per_byte"]
    assert 0 < fact["low"] <= fact["value"] <= fact["high"]


def chat_figures(*given: object) -> dict[str, dict[str, object]]:
    from conjure.tasks.chat_evaluation import answer_figures

    return answer_figures(*given, each=1)  # type: ignore[arg-type]


def test_figures_count_right_answers() -> None:
    from conjure.data.exercises import Exercise
    from conjure.tasks.chat_evaluation import answer_figures

    asked = [Exercise("instruction", "x", "one two", "k")] * 2
    best = answer_figures(lambda some: [each.answer + " " for each in some], asked, ["own"], each=2)
    assert best["exact_match"]["value"] == best["instructions: rouge_l"]["value"] == 1
    worst = answer_figures(lambda some: ["two" for _ in some], asked, ["own"], each=2)
    assert worst["exact_match"]["value"] <= 0.1 and worst["instructions: word_f1"]["value"] == pytest.approx(2 / 3)


def test_an_answer_comes_piece_by_piece_and_without_the_question(task: Chat) -> None:
    options = ChatOptions(tokens=12, temperature=1.0)
    *pieces, result = task.generate([Text("What is the word?")], options, [3])
    assert isinstance(result, Result) and all(isinstance(piece, Delta) for piece in pieces)
    assert "".join(piece.text for piece in pieces) == result.media[0].text
    assert "What is" not in result.media[0].text
    several = list(task.generate([Text("What is the word?")], options, [3, 4]))[-1].media
    assert several[0].text == result.media[0].text
    with pytest.raises(ConjureError, match="expected a question"):
        list(task.generate([Text(" ")], options, [0]))


def test_text_cannot_forge_a_turn(task: Chat) -> None:
    ids = task._start("", f"a {ASSISTANT} b")
    assert ids.count(task.turns.assistant) == 1


def test_preview_answers_each_kind(task: Chat) -> None:
    text = task.preview(0)["answers"].text
    assert text.count("->") >= 30 and "capital" in text
