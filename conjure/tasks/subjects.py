"""A loaded model as examinations see it (`metrics/harness.py:Subject`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import cast

from torch import Tensor

from conjure.codecs.tokenizer import Tokenizer
from conjure.core import shelf
from conjure.core.errors import ConjureError
from conjure.decoding.generate import Decoding, Network, generate
from conjure.metrics.harness import Subject
from conjure.models.compiled import Compiled
from conjure.models.language import LanguageModel
from conjure.models.lstm import LSTM
from conjure.models.transformer import Transformer
from conjure.tasks.make import load


def subject(model: str | Path) -> Subject:
    """Of a language model by name, a public one or one that conjure trained.

    Raises `ConjureError` for a model that does not write on from where a text stops.
    """
    if shelf.info(model).kind != "lstm":
        return of_language_model(LanguageModel.load(shelf.find(model)))
    loaded = load(model)
    network, tokenizer, data = (getattr(loaded, name) for name in ("network", "tokenizer", "data"))
    assert isinstance(network, LSTM)
    return _subject(tokenizer, lambda ids_BT, mask_BT: network(ids_BT), network, Decoding, (), data.length)


def of_language_model(model: LanguageModel) -> Subject:
    """Greedy decoding keeps to the model's own generation_config.json, as transformers does."""
    if "generate" not in model.can or "rewrite" in model.can:
        raise ConjureError(
            f"{model.folder}: suites are questions to models that write on from where a text stops",
            hint=f"this one can {', '.join(sorted(model.can))}",
        )

    def logits(ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        return model.logits(ids_BT, attention_mask=mask_BT)

    network = model.network  # and not the compiled copy that `generate` makes of small ones
    assert isinstance(network, Transformer | Compiled)
    return _subject(model.tokenizer, logits, cast("Network", network), model.decoding, model.end, model.context)


def _subject(
    tokenizer: Tokenizer,
    logits: Callable[[Tensor, Tensor], Tensor],
    network: Network,
    decoding: Callable[..., Decoding],
    ends: Collection[int],
    context: int,
) -> Subject:
    """The end of a text is the tokenizer's; where it names none, the network's."""
    eos = next((each for each in (tokenizer.eos, tokenizer.end, *ends) if each is not None), None)
    prefix = tokenizer.bos if tokenizer.bos is not None else eos
    known = {*ends, *([] if eos is None else [eos])}

    def encode(text: str, special: bool) -> list[int]:
        return tokenizer.encode(text, special=special, special_in_text=True)

    def write(prompts: Sequence[Sequence[int]], tokens: int, stop: Sequence[str]) -> list[list[int]]:
        # A stop that is one special token is no text that could be found: it ends a text as its end does.
        marks = {index for each in stop if (index := tokenizer.id(each)) is not None and index in tokenizer.specials}
        made = generate(
            network, tokenizer, prompts, decoding(tokens=tokens, temperature=0.0, stop=tuple(filter(None, stop))),
            seeds=[0] * len(prompts), end=known | marks, context=context,
        )  # fmt: skip
        return [[token for token in each.ids if token not in known | marks] for each in made]

    return Subject(
        logits=logits,
        encode=encode,
        decode=tokenizer.decode,
        write=write,
        vocabulary=tokenizer.size,
        prefix=prefix,
        prefix_text="" if prefix is None else tokenizer.token(prefix),
        end_text="" if eos is None else tokenizer.token(eos),
        context=context,
    )
