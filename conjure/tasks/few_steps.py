"""text -> image in one to four steps: a student of a model that takes more.

Only the student's diffusion transformer learns; words, book, layout and codec are the teacher's. The folder is a
painter's like the teacher's, so `TextToImage` and everything that edits opens it too. No picture is read: the student
learns from captions, noise, and what its teacher draws of them.

Legend: B batch, Z latent channels, h and w cells.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError, suggest
from conjure.core.events import Event, Progress
from conjure.core.files import write_atomic
from conjure.core.shelf import find
from conjure.data.captions import Example, SceneCaptions
from conjure.data.scenes import SceneSource
from conjure.diffusion.consistency import Consistency
from conjure.media.image import Image, grid
from conjure.media.text import Text
from conjure.metrics.confidence import bootstrap_mean
from conjure.metrics.psnr import psnr
from conjure.models.folder import read_config
from conjure.models.painter import named_places
from conjure.tasks.memorisation import Sets
from conjure.tasks.picture_evaluation import Draw, Tell, compositions, known_things
from conjure.tasks.scene_drawing import copied
from conjure.tasks.text_to_image import CaptionData, TextToImage, TextToImageOptions

MANY = 12  # steps of the teacher's pictures that the student's are compared with
THINGS, SCENES, COMPARED = 100, 150, 150  # of each measure, for every number of steps; things in three phrasings


@plain_dataclass(frozen=True, kw_only=True)
class FewStepsConfig:
    """`teacher` names the model folder whose pictures are learnt; `steps` and `solver` are those of `Consistency`."""

    teacher: str = "starter/pictograms"
    steps: tuple[int, ...] = (1, 2, 4)
    solver: int = 6


@dataclass(frozen=True, kw_only=True)
class FewStepsOptions(TextToImageOptions):
    """How a picture is drawn."""

    steps: int = Field(default=2, ge=1, le=1000, description="steps of the sampler; it has learnt 1, 2 and 4")


class FewSteps:
    """Trains a student and draws with it. `teacher` is there while it trains; a loaded one has none."""

    Options = FewStepsOptions
    ModelConfig = FewStepsConfig
    DataConfig = CaptionData
    forecast = staticmethod(TextToImage.forecast)
    causal = False

    def __init__(
        self, student: TextToImage, config: FewStepsConfig, *, teacher: TextToImage | None = None, seed: int = 0
    ) -> None:
        self.student, self.config, self.teacher, self.seed = student, config, teacher, seed
        self.network = student.network.dit
        self.process = Consistency(flow=student.config.flow, steps=config.steps, solver=config.solver)

    @property
    def sets(self) -> tuple[str, ...]:
        return self.student.sets

    @classmethod
    def create(cls, model: FewStepsConfig, data: CaptionData, seed: int = 0) -> FewSteps:
        """A student with its teacher's weights; the seed chooses examples alone."""
        folder = find(model.teacher)
        teacher, student = TextToImage.load(folder), TextToImage.load(folder)
        if teacher.data.source != "scenes" or teacher.data != data:
            known = ", ".join(f"{key}: {value}" for key, value in to_dict(teacher.data).items())
            raise ConjureError(f"a student learns what its teacher knows; {model.teacher} knows {{{known}}}",
                               hint="the recipe's data are to be the teacher's, and scenes")
        student.source = SceneCaptions(SceneSource.load(data.size))
        student.network.dit.requires_grad_(True)
        return cls(student, model, teacher=teacher, seed=seed)

    @classmethod
    def load(cls, folder: Path) -> FewSteps:
        """The student in a folder, ready to draw."""
        config = from_dict(FewStepsConfig, read_config(folder).get("student", {}), where="student")
        return cls(TextToImage.load(folder), config)

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        assert self.student.source is not None
        examples = [self.student.source.example(self.seed, i) for i in indices]
        own = [randomness.derive(self.seed, "example", i) for i in indices]
        told = [randomness.rng(s).random() >= self.student.config.drop for s in own]
        return self._told(examples, told, own)

    def _told(self, examples: Sequence[Example], told: Sequence[bool], own: Sequence[int]) -> dict[str, Tensor]:
        captions = [e.caption if tell else "" for e, tell in zip(examples, told, strict=True)]
        rows, pages = self.student.words.encode(captions, self.student.config.text.length)
        things_BK5 = named_places(torch.from_numpy(pages), [e.places for e in examples])
        return {"words": torch.from_numpy(rows), "pages": torch.from_numpy(pages), "things": things_BK5,
                "seeds": torch.tensor(list(own))}

    @torch.no_grad()
    def _lesson(self, batch: dict[str, Tensor]) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """(what the transformer is told, the noise, what the teacher makes of both), of the type of the batch."""
        assert self.teacher is not None
        like, dit = batch["things"], self.network.config
        painter = self.teacher.network.to(like.device)
        context = painter.read(batch["words"], batch["pages"])
        told = (*context, painter.guide(context, batch["pages"], batch["things"]))
        told = tuple(each.to(like.dtype) if each.is_floating_point() else each for each in told)
        noise = randomness.normal(batch["seeds"].tolist(), (dit.channels, dit.size, dit.size)).to(like)
        teacher = self.process.denoise(lambda x, t: painter.dit(x, t, *told))
        return told, noise, self.process.ends(teacher, noise)

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        student = self.network if network is None else network
        told, noise, end = self._lesson(batch)
        loss_B = self.process.loss(lambda x, t: student(x, t, *told), end, noise)
        return loss_B.sum(), torch.tensor(len(loss_B))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        """Positions of all pictures that the student draws; the first evaluation is shared."""
        return len(batch["words"]) * self.network.patch_count * self._evaluations

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward passes of the student, forward passes of the teacher."""
        length, passes = self.student.config.text.length, 3 * self._evaluations + self.config.solver
        return passes * self.network.flops(len(batch["words"]), length)

    @property
    def _evaluations(self) -> int:
        return 1 + sum(steps - 1 for steps in self.config.steps)

    def describe(self, batch: dict[str, Tensor]) -> str:
        """Captions as the network reads them."""
        lines = [f"{len(batch['words'])} captions, each drawn in {', '.join(map(str, self.config.steps))} steps:"]
        told = zip(batch["words"].tolist(), batch["pages"].tolist(), strict=True)
        return "\n".join([*lines, *("  " + self.student.words.read(*each) for each in told)])

    def preview(self, seed: int) -> dict[str, Image]:
        """The source's prompts, a row for each number of steps."""
        assert self.student.source is not None
        prompts = self.student.source.prompts
        seeds = [randomness.derive(seed, i) for i in range(len(prompts))]
        pictures = [each for steps in self.config.steps for each in self._drawer(steps)(prompts, seeds)]
        return {"pictures": grid(pictures, columns=len(prompts))}

    @torch.no_grad()
    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """The loss over held-out captions, and the root mean squared distance to the teacher's end in latents for each
        number of steps, the student's and the teacher's own."""
        assert self.student.source is not None and self.teacher is not None
        indices, total = range(limit or 128), 0.0
        away = np.zeros((2, len(self.config.steps)))
        for start in range(0, len(indices), 32):
            part = indices[start : start + 32]
            batch = self._told([self.student.source.example(self.seed, i, "test") for i in part], [True] * len(part),
                               [randomness.derive(0, "validation", i) for i in part])
            told, noise, end = self._lesson(batch)
            total += self.process.loss(lambda x, t, told=told: self.network(x, t, *told), end, noise).sum().item()
            for row, dit in enumerate((self.network, self.teacher.network.dit)):
                denoise = self.process.denoise(lambda x, t, dit=dit, told=told: dit(x, t, *told))
                away[row] += [(x - end).square().flatten(1).mean(1).sum().item()
                              for x in self.process.drawn(denoise, noise)]
        roots = np.sqrt(away / len(indices))
        names = [f"{who}_{steps}" for who in ("student", "teacher") for steps in self.config.steps]
        return {"loss": total / len(indices), **dict(zip(names, roots.flatten().tolist(), strict=True))}

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        """A painter's folder, which says whose student it is."""
        whole = dict(self.student.network.state_dict())
        whole |= {f"dit.{name}": tensor for name, tensor in (weights or self.network.state_dict()).items()}
        self.student.save(folder, weights=whole, dtype=dtype)
        config = read_config(folder) | {"task": "few_steps", "student": to_dict(self.config)}
        text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
        write_atomic(folder / "config.json", text.encode())

    # ---------------------------------------------------------------- use
    def generate(self, inputs: Sequence[Text], options: FewStepsOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One picture per seed; sample k is the same alone and among others."""
        yield from self.student.generate(inputs, options, seeds)

    def together(
        self, asked: Sequence[tuple[Sequence[Text], Sequence[int]]], options: FewStepsOptions
    ) -> Iterator[tuple[int, Event]]:
        """As `TextToImage.together`."""
        return self.student.together(asked, options)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """For each number of steps: known things, composition, and likeness to the teacher's pictures of 12 steps."""
        source = SceneSource.load(self.student.data.size)
        measures: dict[str, Callable[[], dict[str, Any]]] = {}
        for steps in self.config.steps:
            draw = self._drawer(steps)
            measures |= {
                f"known_things_{steps}": partial(known_things, draw, source, limit=THINGS, tell=on_progress),
                f"composition_{steps}": partial(compositions, draw, source, count=SCENES, tell=on_progress),
                f"likeness_{steps}": partial(self._likeness, draw, SceneCaptions(source), tell=on_progress),
            }
        for name in data:
            if name not in measures:
                raise ConjureError(f"this model has no measure '{name}'", hint=suggest(name, measures))
        return {name: measures[name]() for name in data or measures}

    def _likeness(self, draw: Draw, source: SceneCaptions, tell: Tell | None) -> dict[str, Any]:
        teacher = TextToImage.load(find(self.config.teacher))
        options, found = TextToImageOptions(steps=MANY), []
        for start in range(0, COMPARED, 16):
            part = range(start, min(start + 16, COMPARED))
            prompts = [source.example(0, i, "test").caption for i in part]
            seeds = [randomness.derive(0, "likeness", i) for i in part]
            both = zip(draw(prompts, seeds), teacher.draw(prompts, options, seeds), strict=True)
            found += [min(psnr(mine.pixels, other.pixels), 60.0) for mine, other in both]
            if tell:
                tell(Progress(len(found), COMPARED, "picture", "likeness to the teacher"))
        value, low, high = bootstrap_mean(found, seed=0)
        protocol = f"mean PSNR in dB, at most 60, to the teacher's picture of {MANY} steps from the same noise"
        return {"value": value, "low": low, "high": high, "n": COMPARED, "protocol": protocol}

    def memorisation_sets(self, tell: Callable[[Event], None] | None = None) -> Sets:
        """Samples beside the first scenes that the teacher learnt from, and as many that nobody saw."""
        source = SceneCaptions(SceneSource.load(self.student.data.size))
        return copied(self._drawer(self.config.steps[-1]), source.example, tell)

    def _drawer(self, steps: int) -> Draw:
        options = FewStepsOptions(steps=steps)
        return lambda prompts, seeds: self.student.draw(prompts, options, seeds)
