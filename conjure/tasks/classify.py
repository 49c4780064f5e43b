"""text -> text: labels. Of a whole text by a classifier, of its words by a tagger, and labels of one's own by a model
of entailment (Yin et al. 2019, arXiv 1909.00161) or by the likelihood that a decoder gives them.

Legend: L labels, T tokens.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result
from conjure.media.text import Text
from conjure.metrics.harness import loglikelihood
from conjure.models.language import LanguageModel, Weights
from conjure.models.transformer import Transformer
from conjure.tasks.passages import passages
from conjure.tasks.public import WEIGHTS, PublicTask, parted
from conjure.tasks.subjects import of_language_model
from conjure.tasks.windows import Framed, alone, beside, read, spread

QUESTION = "\nWhich of these is it: {}?\nAnswer:"
TOKENS_AT_ONCE = 512
"""Of a long text, for a decoder."""


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions:
    weights: Weights | None = WEIGHTS
    labels: str = Field(default="", description="labels of your own, with commas between: sport,politics,weather")
    several: bool = Field(default=False, description="each of your labels may hold or not, whatever the others do")
    hypothesis: str = Field(default="This example is {}.", description="the sentence a label is put into (NLI)")


class Classify(PublicTask):
    Options = ClassifyOptions

    def generate(self, inputs: Sequence[Text], options: ClassifyOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """A line for each label, the likeliest first, or for each span; the same for each seed."""
        began = time.perf_counter()
        text, _ = parted(inputs, "classif")
        if not text.strip():
            raise ConjureError("expected a text, got an empty one", hint="name a file, or write the text")
        model, labels = self.model(options.weights), _labels(options.labels)
        yield Progress(0, 1, "text")
        found: dict[str, Any]
        if "tag" in model.can:
            if labels:
                raise ConjureError("--labels: a tagger knows its own labels only", hint=f"they are {_listed(model)}")
            found = {"spans": _spans(model, text)}
            lines = [f"{each['start']}-{each['end']}  {each['label']}  {each['score']:.3f}  {each['text']}"
                     for each in found["spans"]] or ["no spans"]  # fmt: skip
        else:
            found = {"labels": _ranked(model, text, labels, options)}
            lines = [f"{each['label']}  {each['score']:.3f}" for each in found["labels"]]
        facts = {"results": [found] * len(seeds), "seconds": round(time.perf_counter() - began, 3)}
        yield Result([Text("\n".join(lines))] * len(seeds), facts)


def _labels(said: str) -> list[str]:
    labels = [each.strip() for each in said.split(",")] if said else []
    if said and (not all(labels) or len(set(labels)) < len(labels)):
        raise ConjureError(f"--labels: expected different labels with commas between, got {said!r}")
    return labels


def _ranked(model: LanguageModel, text: str, labels: list[str], options: ClassifyOptions) -> list[dict[str, Any]]:
    if not labels:
        if "classify" not in model.can:
            raise ConjureError("a decoder has no labels of its own", hint="name some: --labels good,bad")
        scores = _known(model, text)
    elif "generate" in model.can and not isinstance(model.network, Transformer):
        raise ConjureError(f"--weights {options.weights}: a decoder classifies as it is", hint="leave it out")
    elif isinstance(model.network, Transformer):
        if len(labels) < 2:
            raise ConjureError("--labels: a decoder chooses between labels, expected two or more")
        if options.several:
            raise ConjureError("--several: a decoder chooses one label", hint="take a model of entailment (NLI)")
        scores = _likelihoods(model, text, labels)
    else:
        scores = _entailed(model, text, labels, options)
    return [{"label": label, "score": score} for label, score in sorted(scores.items(), key=lambda each: -each[1])]


# -- a classifier's own labels -----------------------------------------------------------------------------------------


def names_of(model: LanguageModel, count: int) -> list[str]:
    """`id2label` of the config."""
    said = model.config.get("id2label") or {}
    return [str(said.get(str(index), f"LABEL_{index}")) for index in range(count)]


def _listed(model: LanguageModel) -> str:
    return ", ".join(map(str, (model.config.get("id2label") or {"0": "of its own"}).values()))


def _known(model: LanguageModel, text: str) -> dict[str, float]:
    """The probability of each label; over a long text the mean of its windows, weighted by their lengths."""
    scores_L = _over_windows(model, alone(model.tokenizer, text), lambda logits_L: _scores(model, logits_L))
    return dict(zip(names_of(model, len(scores_L)), scores_L.tolist(), strict=True))


def _scores(model: LanguageModel, logits_L: Tensor) -> Tensor:
    kind = model.config.get("problem_type")
    if kind == "regression" or (kind is None and len(logits_L) == 1):
        return logits_L
    return logits_L.sigmoid() if kind == "multi_label_classification" or len(logits_L) == 1 else logits_L.softmax(-1)


def _over_windows(model: LanguageModel, framed: Framed, scored: Any) -> Tensor:
    spans = spread(len(framed.ids), framed.room(model.context))
    found = [scored(logits) for logits in read(model, [framed.window(*span) for span in spans])]
    weights = torch.tensor([max(1, end - start) for start, end in spans], dtype=torch.float32)
    return (torch.stack(found) * weights[:, None]).sum(0) / weights.sum()


# -- labels of one's own -----------------------------------------------------------------------------------------------


def _entailed(model: LanguageModel, text: str, labels: list[str], options: ClassifyOptions) -> dict[str, float]:
    known = [name.casefold() for name in names_of(model, len(model.config.get("id2label") or {}) or 2)]
    yes = next((index for index, name in enumerate(known) if name.startswith("entail")), None)
    no = next((index for index, name in enumerate(known) if name.startswith(("contradict", "not_entail"))), None)
    if yes is None or no is None:
        raise ConjureError(
            f"--labels: this classifier knows its own labels only: {_listed(model)}",
            hint="labels of your own need a model of entailment (NLI), or a decoder",
        )
    if "{}" not in options.hypothesis:
        raise ConjureError("--hypothesis: expected {} where the label goes", hint='as in "This text is about {}."')
    found = []
    for label in labels:
        framed = beside(model.tokenizer, text, options.hypothesis.replace("{}", label), first=True)
        found.append(_over_windows(model, framed, lambda logits_L: logits_L[[no, yes]]))
    logits_L2 = torch.stack(found)
    scores_L = logits_L2.softmax(-1)[:, 1] if options.several else logits_L2[:, 1].softmax(0)
    return dict(zip(labels, scores_L.tolist(), strict=True))


def _likelihoods(model: LanguageModel, text: str, labels: list[str]) -> dict[str, float]:
    """How much likelier the text makes each label than it is without one (Holtzman et al. 2021, arXiv 2104.08315): so
    neither long nor rare labels lose by that. Over a long text the mean of its parts, weighted by their lengths."""
    question = QUESTION.format(", ".join(labels))
    subject, encode = of_language_model(model), model.tokenizer.encode
    taken = len(encode(question)) + max(len(encode(label)) for label in labels) + 8
    room = min(TOKENS_AT_ONCE, (model.context or TOKENS_AT_ONCE + taken) - taken)
    if room < 1:
        raise ConjureError(f"this model reads at most {model.context} tokens: the labels alone have {taken}")
    parts = [part for part, _ in passages(text, lambda each: len(encode(each)), room) if part]
    scored = loglikelihood(
        subject, [(part + question, f" {label}") for part in ["", *parts] for label in labels]
    )
    logp_PL = torch.tensor([each.logprob for each in scored]).view(-1, len(labels))
    weights_P = torch.tensor([float(len(part)) for part in parts])
    scores_PL = (logp_PL[1:] - logp_PL[:1]).softmax(-1)
    scores_L = (scores_PL * weights_P[:, None]).sum(0) / weights_P.sum()
    return dict(zip(labels, scores_L.tolist(), strict=True))


# -- spans -------------------------------------------------------------------------------------------------------------


def _spans(model: LanguageModel, text: str) -> list[dict[str, Any]]:
    """Neighbouring words of one label; a word has the label of its first token. Each token is judged in the window
    where it has most on both sides."""
    tokenizer = model.tokenizer
    framed, offsets = alone(tokenizer, text), tokenizer.offsets(text)
    room = framed.room(model.context)
    spans = spread(len(framed.ids), room, room // 4)
    seen: list[tuple[int, Tensor] | None] = [None] * len(framed.ids)
    windows = [framed.window(*span) for span in spans]
    for (start, end), logits_TL in zip(spans, read(model, windows), strict=True):
        p_TL = logits_TL.softmax(-1)
        for place in range(start, end):
            margin = min(place - start if start else end, end - 1 - place if end < len(framed.ids) else end)
            known = seen[place]
            if known is None or known[0] < margin:
                seen[place] = margin, p_TL[len(framed.before) + place - start]
    labels = names_of(model, len(seen[0][1]) if seen and seen[0] else 0)
    found: list[dict[str, Any]] = []
    open_until = -1  # the place behind the last token of the span that may go on
    for place, (each, (start, end)) in enumerate(zip(seen, offsets, strict=True)):
        assert each is not None
        while start < end and text[start].isspace():
            start += 1
        if start >= end:
            open_until = place + 1 if open_until == place else open_until
            continue
        inside = start > 0 and text[start - 1].isalnum() and text[start].isalnum() and place > 0
        if inside:  # the rest of a word
            if open_until == place:
                found[-1]["end"], open_until = end, place + 1
            continue
        best = int(each[1].argmax())
        border, _, name = labels[best].rpartition("-") if labels[best][:2] in ("B-", "I-") else ("", "", labels[best])
        if labels[best] == "O":
            continue
        goes_on = open_until == place and found[-1]["label"] == name and border != "B"
        if goes_on:
            found[-1]["end"] = end
            found[-1]["scores"].append(float(each[1][best]))
        else:
            found.append({"label": name, "start": start, "end": end, "scores": [float(each[1][best])]})
        open_until = place + 1
    for each in found:
        scores = each.pop("scores")
        each["text"], each["score"] = text[each["start"] : each["end"]], sum(scores) / len(scores)
    return found
