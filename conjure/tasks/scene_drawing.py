"""What models share that draw scenes from texts read word by word: complaints, one loop of sampling, and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from conjure.codecs.picture_words import PictureWords
from conjure.core.errors import ConjureError, suggest
from conjure.core.events import Event, Progress, Result, Warn
from conjure.core.seeds import derive
from conjure.data.captions import Example
from conjure.data.few_scenes import FRESH, FewScenes
from conjure.data.scene_graph import Split
from conjure.media.image import Image
from conjure.media.text import Text
from conjure.tasks.memorisation import Sets
from conjure.tasks.picture_evaluation import Draw, compositions, known_things

BATCH = 16  # pictures at a time
KNOWN, COMPOSED = 100, 500  # things and prompts of the published figures
COPIES, SHOWN = 160, 2000  # samples, and pictures of either kind that they are held against

DrawEvents = Callable[[Sequence[str], Sequence[int]], Iterator[Event]]


def prompted(inputs: Sequence[Text], words: PictureWords, length: int) -> tuple[str, list[Warn]]:
    """The prompt, and what the model cannot read in it. `ConjureError` for an empty one."""
    prompt = " ".join(each.text for each in inputs).strip()
    if not prompt:
        raise ConjureError("expected a prompt, got an empty text", hint='try: conjure make "a cat" -o cat.png')
    said = words.unread(prompt, length, "This model knows few things and draws what it can")
    return prompt, [Warn(each) for each in said]


def words_of(task_words: PictureWords, vocabulary: int) -> PictureWords:
    """The same words; `ConjureError` where the network has another number of them."""
    if len(task_words.vocabulary) != vocabulary:
        raise ConjureError(f"model.text.vocab is {vocabulary}, the captions have {len(task_words.vocabulary)} words",
                           hint=f"model.text.vocab={len(task_words.vocabulary)}")
    return task_words


def rows(words: PictureWords, captions: Sequence[str], length: int) -> torch.Tensor:
    """int64 `[B, length]`: captions as rows of the table of words."""
    return torch.from_numpy(words.encode(captions, length)[0])


def in_batches(events: DrawEvents, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image]:
    """The pictures of many prompts, so many at a time as fit a small machine."""
    made: list[Image] = []
    for start in range(0, len(prompts), BATCH):
        part = slice(start, start + BATCH)
        results = (event for event in events(prompts[part], seeds[part]) if isinstance(event, Result))
        made += [each for result in results for each in result.media if isinstance(each, Image)]
    return made


def figures(
    draw: Draw, scenes: FewScenes, data: Sequence[str], tell: Callable[[Event], None] | None
) -> dict[str, dict[str, Any]]:
    """Known things and composition; `data` may choose among them."""
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "known_things": lambda: known_things(draw, scenes.source, limit=KNOWN, tell=tell),
        "composition": lambda: compositions(draw, scenes.source, count=COMPOSED, tell=tell),
    }
    for name in data:
        if name not in measures:
            raise ConjureError(f"this model has no measure '{name}'", hint=suggest(name, measures))
    return {name: measures[name]() for name in data or measures}


def copied(
    draw: Draw, example: Callable[[int, int, Split], Example], tell: Callable[[Event], None] | None = None, *,
    unseen: Split = "train",
) -> Sets:  # fmt: skip
    """Samples of captions that training never saw, beside the first examples of training and as many new ones: those
    from `FRESH` on, of the split `unseen`. `example` takes the recipe's seed, a number and a split."""
    prompts = [example(0, 2 * FRESH + k, unseen).caption for k in range(COPIES)]
    made = []
    for start in range(0, COPIES, BATCH):
        part = range(start, min(start + BATCH, COPIES))
        made += [each.pixels for each in draw(prompts[start : part.stop], [derive(0, "measured", k) for k in part])]
        if tell:
            tell(Progress(len(made), COPIES, "picture", "samples for the memorisation check"))
    seen = np.stack([example(0, k, "train").pixels for k in range(SHOWN)])
    new = np.stack([example(0, FRESH + k, unseen).pixels for k in range(SHOWN)])
    return Sets(made_NHWC=np.stack(made), train_MHWC=seen, held_out_HHWC=new)
