"""text -> image, from a recipe's values to a saved model and its pictures, on pictograms made here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conjure.codecs.image_autoencoder import ImageAutoencoderConfig
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result, Warn
from conjure.core.seeds import normal
from conjure.data.captions import COLOUR_NUMBERS
from conjure.data.digits import NAMES
from conjure.data.scenes import SceneSource
from conjure.diffusion.flow import RectifiedFlow
from conjure.media.image import Image
from conjure.media.text import Text
from conjure.models.dit import DiTConfig
from conjure.models.folder import read_config
from conjure.models.painter import PainterConfig
from conjure.models.picture_book import STEPS, PictureBookConfig
from conjure.models.picture_text import PictureTextConfig
from conjure.tasks import image_to_image
from conjure.tasks.image_to_image import CodecData, Reconstruct
from conjure.tasks.scene_painter import ScenePainter
from conjure.tasks.text_to_image import CaptionData, TextToImage, TextToImageOptions
from tests.data.handwriting import write_mnist
from tests.data.shapes import SIDE, shapes, vocabulary

DATA = CaptionData(size=SIDE)
MODEL = PainterConfig(
    text=PictureTextConfig(vocab=len(vocabulary().vocabulary), length=14, dim=16, layers=1, heads=2),
    book=PictureBookConfig(pages=len(shapes().pictograms), channels=4, side=8, points=2),
    dit=DiTConfig(channels=4, size=8, patch=2, dim=16, layers=1, heads=2, hidden=32),
    flow=RectifiedFlow(predict="sample", floor=0.2),
    drop=0.25,
)
DIGITS = PainterConfig(
    text=PictureTextConfig(vocab=15, length=3, dim=16, layers=1, heads=2),
    dit=DiTConfig(channels=1, size=28, patch=7, dim=16, layers=1, heads=2, hidden=32),
)
QUICK = TextToImageOptions(steps=3)


@pytest.fixture(scope="module", autouse=True)
def codec(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The folder of a codec that is no more than principal components; scenes are those of `shapes`."""
    folder = tmp_path_factory.mktemp("codec")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SceneSource, "load", classmethod(lambda cls, size=SIDE: shapes()))
        patch.setattr(image_to_image, "MEASURED", 16)
        config = ImageAutoencoderConfig(latent_channels=4, width=8, fine_width=4)
        Reconstruct.create(config, CodecData(size=SIDE)).save(folder)
        yield str(folder)


def create(codec: str, seed: int = 0) -> TextToImage:
    """A model with random weights: a new one would draw the same whatever it is told."""
    task = TextToImage.create(replace(MODEL, codec=codec), DATA, seed)
    with torch.no_grad():
        for k, parameter in enumerate(task.network.parameters()):
            parameter.copy_(0.2 * normal([k], parameter.shape)[0])
    return task


@pytest.fixture(scope="module")
def painter(codec: str, tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    folder = tmp_path_factory.mktemp("painter")
    create(codec).save(folder)
    return TextToImage.load(folder)


def made(task: TextToImage, prompt: str, options: TextToImageOptions = QUICK, seeds: tuple[int, ...] = (1,)) -> Result:
    last = list(task.generate([Text(prompt)], options, seeds))[-1]
    assert isinstance(last, Result)
    return last


def pixels(result: Result) -> np.ndarray:
    return np.stack([medium.pixels.astype(int) for medium in result.media])  # type: ignore[attr-defined]


def warnings(task: TextToImage, prompt: str, options: TextToImageOptions = QUICK) -> list[str]:
    return [event.text for event in task.generate([Text(prompt)], options, [1]) if isinstance(event, Warn)]


# -- training --------------------------------------------------------------------------------------------------


def test_examples_are_pure_functions_of_their_index(codec: str) -> None:
    task = create(codec)
    together, alone = task.batch([3, 8, 21]), create(codec).batch([8])
    for key, tensor in together.items():
        assert torch.allclose(tensor[1:2].float(), alone[key].float(), atol=1e-6), key
    assert together["x"].shape == (3, 4, 8, 8)
    assert not torch.equal(create(codec, seed=1).batch([8])["x"], alone["x"])


def test_places_belong_to_the_tokens_that_name_them(codec: str) -> None:
    task = create(codec)
    batch = task.batch(range(40))
    untold = 0
    for index in range(40):
        scene = shapes().scene(0, index)
        things = [thing for thing in batch["things"][index].tolist() if thing[0] >= 0]
        if not things:
            untold += 1
            assert (batch["words"][index] > 1).sum() == 0 and (batch["pages"][index] == -1).all()
            continue
        pages = [int(batch["pages"][index, int(token)]) for token, *_ in things]
        assert pages == [t.concept for t in scene.things]
        for (_, x, y, scale, colour), t in zip(things, scene.things, strict=True):
            assert (x, y, scale) == pytest.approx((t.x, t.y, t.scale)) and colour == COLOUR_NUMBERS[t.colour]
    assert 3 <= untold <= 20, "a quarter of the captions is dropped"


def test_the_book_holds_every_page(codec: str) -> None:
    task = create(codec)
    assert task.network.book is not None and task.codec is not None and task.source is not None
    for page in (0, 5, 17):
        own = task._encode([task.source.pages[page]])[0]
        assert (task.network.book.open(torch.tensor(page)).T.view(4, 8, 8) - own).abs().max() <= 0.5 / STEPS + 1e-5


def test_the_loss_falls_and_is_drawn_from_the_batchs_seeds(codec: str) -> None:
    task = TextToImage.create(replace(MODEL, codec=codec), DATA, 0)
    batch = task.batch(range(12))
    optimizer = torch.optim.Adam(task.network.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        total, count = task.loss(batch)
        assert int(count) == 12
        losses.append(total.item() / 12)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    parts = [{key: tensor[part] for key, tensor in batch.items()} for part in (slice(5), slice(5, 12))]
    assert sum(task.loss(part)[0].item() for part in parts) == pytest.approx(task.loss(batch)[0].item(), rel=1e-4)
    assert all(parameter.grad is not None for parameter in task.network.parameters())


def test_weights_depend_on_the_seed_alone(codec: str) -> None:
    torch.manual_seed(5)
    one = TextToImage.create(replace(MODEL, codec=codec), DATA, 2).network.state_dict()
    torch.manual_seed(6)
    again = TextToImage.create(replace(MODEL, codec=codec), DATA, 2).network.state_dict()
    other = TextToImage.create(replace(MODEL, codec=codec), DATA, 3).network.state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["dit.patches.weight"], other["dit.patches.weight"])


def test_figures_previews_and_descriptions(codec: str) -> None:
    task = create(codec)
    assert task.evaluate(5) == task.evaluate(5) != task.evaluate(4)
    batch = task.batch(range(6))
    assert task.tokens(batch) == 6 * 16 and task.flops(batch) == 3 * task.network.flops(6)
    said = task.describe(batch).splitlines()
    assert len(said) == 7 and said[0].startswith("6 pictures as (4, 8, 8)")
    told = next(line for line in said[1:] if "[" in line)
    assert "<start>" in told and " at 0." in told
    task.source.prompts = ("a teapot", "two leaves above a box")  # type: ignore[union-attr]
    assert task.preview(0)["pictures"].pixels.shape == (2 * SIDE, SIDE, 3)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"text": replace(MODEL.text, vocab=9)}, r"model\.text\.vocab is 9, the data have"),
        ({"text": replace(MODEL.text, colours=3)}, r"model\.text\.colours is 3, the data have 9"),
        ({"book": replace(MODEL.book, pages=7)}, r"model\.book\.pages is 7, the data have 18"),
        ({"dit": replace(MODEL.dit, size=16), "book": replace(MODEL.book, side=16)}, r"come as \(4, 8, 8\)"),
        ({"codec": "no/such/codec"}, "no/such/codec"),
    ],
)
def test_recipes_that_do_not_fit_their_data(codec: str, change: dict[str, object], message: str) -> None:
    with pytest.raises(ConjureError, match=message):
        TextToImage.create(replace(MODEL, **({"codec": codec} | change)), DATA)  # type: ignore[arg-type]


# -- model folders ---------------------------------------------------------------------------------------------


def test_what_is_saved_draws_the_same_pictures(codec: str, tmp_path: Path) -> None:
    task = create(codec)
    task.save(tmp_path)
    again = TextToImage.load(tmp_path)
    assert read_config(tmp_path)["task"] == "draw" and again.config == task.config and again.data == task.data
    for prompt in ("a green leaf left of a box", "two kites"):
        assert np.array_equal(pixels(made(task, prompt)), pixels(made(again, prompt)))
    weights = {name: 0 * tensor for name, tensor in task.network.state_dict().items()}
    task.save(tmp_path / "other", weights=weights, dtype="bfloat16")
    other = TextToImage.load(tmp_path / "other")
    assert all((parameter == 0).all() for parameter in other.network.parameters())
    assert (tmp_path / "other/model.safetensors").stat().st_size < (tmp_path / "model.safetensors").stat().st_size


def test_a_vocabulary_of_another_model_is_refused(codec: str, tmp_path: Path) -> None:
    create(codec).save(tmp_path)
    saved = json.loads((tmp_path / "words.json").read_text())
    (tmp_path / "words.json").write_text(json.dumps(saved | {"words": saved["words"][:-1]}))
    with pytest.raises(ConjureError, match=r"words\.json: \d+ words for a network of \d+"):
        TextToImage.load(tmp_path)
    (tmp_path / "words.json").write_text(json.dumps(saved | {"names": [["teapot", 99, 0]]}))
    with pytest.raises(ConjureError, match="the book has 18 pages, none for 'teapot'"):
        TextToImage.load(tmp_path)


# -- use -------------------------------------------------------------------------------------------------------


def test_a_sample_is_the_same_alone_and_among_others(painter: TextToImage) -> None:
    for options in (QUICK, TextToImageOptions(steps=3, sampler="euler_ancestral", guidance=2.0)):
        among = pixels(made(painter, "a red box", options, seeds=(4, 5, 6)))
        alone = pixels(made(painter, "a red box", options, seeds=(5,)))
        assert np.abs(among[1] - alone[0]).max() <= 1
        assert np.abs(among[1] - among[0]).max() > 20
        assert np.array_equal(pixels(made(painter, "a red box", options, seeds=(5,))), alone)


def test_the_prompt_its_order_and_its_book_matter(painter: TextToImage) -> None:
    said = [pixels(made(painter, p)) for p in ("a box left of a leaf", "a leaf left of a box", "a box left of a wolf")]
    assert all(np.abs(said[0] - other).max() > 5 for other in said[1:])


@pytest.mark.parametrize(
    "options, evaluations",
    [
        (TextToImageOptions(steps=3), 3),
        (TextToImageOptions(steps=3, guidance=2), 6),
        (TextToImageOptions(steps=3, sampler="heun"), 5),
        (TextToImageOptions(steps=2, sampler="dpmpp_2m", guidance=0.5), 4),
    ],
)
def test_evaluations_are_counted(painter: TextToImage, options: TextToImageOptions, evaluations: int) -> None:
    rows: list[int] = []
    hook = painter.network.dit.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    try:
        assert made(painter, "a box", options, seeds=(1, 2)).facts["evaluations"] == evaluations
    finally:
        hook.remove()
    assert sum(rows) == 2 * evaluations
    assert set(rows) == ({2} if options.guidance == 1 else {4}), "both conditions run as one batch"


def test_without_guidance_nothing_but_the_prompt_is_read(painter: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[str]] = []
    own = painter.words.encode

    def encode(captions: list[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        read.append(list(captions))
        return own(captions, length)

    monkeypatch.setattr(painter.words, "encode", encode)
    made(painter, "a box", TextToImageOptions(steps=1, negative="a leaf"))
    assert read == [["a box"]]
    read.clear()
    made(painter, "a box", TextToImageOptions(steps=1, negative="a leaf", guidance=2))
    assert sorted(read) == [["a box"], ["a leaf"]]


def test_the_negative_prompt(painter: TextToImage) -> None:
    plain, strong = TextToImageOptions(steps=3), TextToImageOptions(steps=3, guidance=4)
    avoided = replace(strong, negative="a leaf")
    assert np.abs(pixels(made(painter, "a box", strong)) - pixels(made(painter, "a box", avoided))).max() > 5
    nothing = replace(strong, negative="a box")  # towards the prompt and away from it: the prompt itself
    assert np.abs(pixels(made(painter, "a box", nothing)) - pixels(made(painter, "a box", plain))).max() <= 1
    assert warnings(painter, "a box", avoided) == []
    (said,) = warnings(painter, "a box", replace(plain, negative="a leaf"))
    assert "has no effect with a guidance of 1" in said


def test_events_come_in_order(painter: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    own = ScenePainter.pixels
    monkeypatch.setattr(ScenePainter, "pixels", lambda self, x: decoded.append(len(x)) or own(self, x))
    events = list(painter.generate([Text("a box"), Text("left of a leaf")], TextToImageOptions(steps=8), [1, 2]))
    assert [e for e in events if isinstance(e, Progress)] == [Progress(k, 8, "step") for k in range(1, 9)]
    assert decoded == [2]  # the result; a preview is decoded when somebody looks at it
    previews = [e.medium for e in events if isinstance(e, Preview)]
    assert len(previews) == 7 and all(isinstance(p, Image) for p in previews)
    assert decoded == [2] * 8 and previews[0].digest() != previews[-1].digest()
    assert isinstance(events[-1], Result) and len(events[-1].media) == 2


def test_unknown_words_are_named_with_what_is_near(painter: TextToImage) -> None:
    assert warnings(painter, "A Green Leaf, to the left of 2 teapots!".replace("2", "two")) == []
    (said,) = warnings(painter, "a zorgle under an umbrela")
    assert "'umbrela' (nearest known: umbrella)" in said and "'zorgle'" in said and "--model" in said
    (said,) = warnings(painter, "a box", TextToImageOptions(steps=1, guidance=2, negative="qqq"))
    assert "'qqq'" in said


def test_a_prompt_that_is_too_long_is_cut_and_says_so(painter: TextToImage) -> None:
    long = "a box to the left of a leaf, on a blue background and a small old woman"
    (said,) = warnings(painter, long)
    assert said.endswith("does not read its end: 'a small old woman'")
    short = "a box to the left of a leaf, on a blue background"
    assert np.abs(pixels(made(painter, long)) - pixels(made(painter, long.replace("small", "large")))).max() == 0
    assert warnings(painter, short) == []


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt(painter: TextToImage, prompt: str) -> None:
    with pytest.raises(ConjureError, match="expected a prompt, got an empty text"):
        next(painter.generate([Text(prompt)], QUICK, [1]))


@pytest.mark.parametrize("size, side", [(0, SIDE), (24, 24), (100, 100)])
def test_size(painter: TextToImage, size: int, side: int) -> None:
    (picture,) = made(painter, "a box", TextToImageOptions(steps=1, size=size)).media
    assert isinstance(picture, Image) and picture.pixels.shape == (side, side, 3)


def test_several_who_ask_at_once_get_what_each_would_get_alone(painter: TextToImage) -> None:
    asked = [([Text("a red box")], [4]), ([Text("two leaves above a box")], [9, 4])]
    came: dict[int, list[Event]] = {0: [], 1: []}
    for number, event in painter.together(asked, QUICK):
        came[number].append(event)
    for number, (inputs, seeds) in enumerate(asked):
        alone = list(painter.generate(inputs, QUICK, seeds))
        assert [type(each) for each in came[number]] == [type(each) for each in alone]
        last, wanted = came[number][-1], alone[-1]
        assert isinstance(last, Result) and isinstance(wanted, Result)
        assert last.facts == wanted.facts and np.abs(pixels(last) - pixels(wanted)).max() <= 1
        both = [(a.medium, b.medium) for a, b in zip(came[number], alone, strict=True)
                if isinstance(a, Preview) and isinstance(b, Preview)]  # fmt: skip
        looks = [(a.pixels.astype(int), b.pixels) for a, b in both if isinstance(a, Image) and isinstance(b, Image)]
        assert len(looks) == 2 and all(np.abs(a - b).max() <= 1 for a, b in looks)
    with pytest.raises(ConjureError, match="empty text"):
        list(painter.together([*asked, ([Text(" ")], [1])], QUICK))


def test_many_prompts_are_drawn_in_batches(painter: TextToImage) -> None:
    prompts = [f"a {name} box" for name in ("red", "green", "blue")] * 6
    drawn = painter.draw(prompts, QUICK, range(18))
    assert len(drawn) == 18
    last = painter.draw(prompts[-1:], QUICK, [17])[0]
    assert np.abs(drawn[-1].pixels.astype(int) - last.pixels).max() <= 1


def test_published_figures(painter: TextToImage) -> None:
    told: list[Event] = []
    found = painter.evaluate_published(["known_things"], told.append)
    assert list(found) == ["known_things"] and found["known_things"]["n"] == 54 == told[-1].total  # type: ignore[union-attr]
    assert found["known_things"]["low"] <= found["known_things"]["value"] <= found["known_things"]["high"]
    with pytest.raises(ConjureError, match="no measure 'composition_'") as refused:
        painter.evaluate_published(["composition_"])
    assert "did you mean 'composition'" in refused.value.hint


# -- digits ----------------------------------------------------------------------------------------------------


def test_digits_are_drawn_on_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "mnist", 30)
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path))
    task = TextToImage.create(DIGITS, CaptionData(source="digits"), 0)
    batch = task.batch(range(8))
    assert batch["x"].shape == (8, 1, 28, 28) and (batch["pages"] == -1).all() and (batch["things"] == -1).all()
    optimizer = torch.optim.Adam(task.network.parameters(), lr=1e-2)
    start = task.evaluate(8)["loss"]
    for _ in range(15):
        total, count = task.loss(batch)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    assert task.evaluate(8)["loss"] < 0.9 * start
    assert task.preview(0)["pictures"].pixels.shape == (2 * 28, 5 * 28, 3)
    task.save(tmp_path / "model")
    again = TextToImage.load(tmp_path / "model")
    assert not (tmp_path / "model/codec.safetensors").exists()
    picture = made(again, "seven")
    assert pixels(picture).shape == (1, 28, 28, 1) and np.array_equal(pixels(picture), pixels(made(task, "seven")))
    assert "'sevn' (nearest known: seven)" in warnings(again, "sevn")[0]
    assert sorted(again.words.vocabulary[5:]) == sorted(NAMES)
    found = again.evaluate_published()["recognised"]
    assert found["n"] == 200 and 0 <= found["low"] <= found["value"] <= found["high"] <= 1
