"""Prompts as picture models read them: one to three text encoders, whose states the denoiser attends to.

| kind | what is attended to | what stands for the whole text |
|---|---|---|
| sd | CLIP, after the final norm | |
| sdxl | both CLIPs before their last layer, side by side | the second one's features |
| sd3 | as sdxl, then T5, one after the other | both CLIPs' features, side by side |
| flux | T5 | CLIP's end mark |

Legend: N texts, T tokens, D width, P width of the features.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import AddedToken
from torch import Tensor, nn

from conjure.codecs.clip_tokenizer import END, clip_tokenizer
from conjure.codecs.tokenizer import Tokenizer
from conjure.core.errors import ConjureError, suggest
from conjure.models.contrastive import TextTower
from conjure.models.encoder_decoder import EncoderDecoderConfig
from conjure.models.public import diffusers, pairs, towers
from conjure.models.public.diffusers import Kind, Part, Pipeline
from conjure.models.public.names import Map
from conjure.models.public.settings import Settings
from conjure.models.public.single_file import open_clip_names
from conjure.models.transformer import Transformer

LENGTHS: dict[Kind, int] = {"sd3": 256, "flux": 512}
"""Tokens that T5 reads for each."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What the denoiser is told of N texts."""

    context_NTD: Tensor
    pooled_NP: Tensor | None = None

    def to(self, device: torch.device) -> Condition:
        pooled = None if self.pooled_NP is None else self.pooled_NP.to(device)
        return Condition(context_NTD=self.context_NTD.to(device), pooled_NP=pooled)

    def nothing(self) -> Condition:
        """The same of nothing but zeros, as SDXL was taught that there is no text."""
        pooled = None if self.pooled_NP is None else torch.zeros_like(self.pooled_NP)
        return Condition(context_NTD=torch.zeros_like(self.context_NTD), pooled_NP=pooled)

    def joined(self, other: Condition) -> Condition:
        """Its texts, then those of the other."""
        pooled = None
        if self.pooled_NP is not None and other.pooled_NP is not None:
            pooled = torch.cat([self.pooled_NP, other.pooled_NP])
        return Condition(context_NTD=torch.cat([self.context_NTD, other.context_NTD]), pooled_NP=pooled)

    def of(self, count: int) -> Condition:
        """A single text's, for several pictures."""
        pooled = None if self.pooled_NP is None else self.pooled_NP.expand(count, *self.pooled_NP.shape[1:])
        return Condition(context_NTD=self.context_NTD.expand(count, *self.context_NTD.shape[1:]), pooled_NP=pooled)


class TextReader:
    """A text encoder with its tokenizer: texts in, states out."""

    def __init__(self, network: TextTower | Transformer, tokenizer: Tokenizer, length: int, names: Map) -> None:
        self.network, self.tokenizer, self.length = network, tokenizer, length
        self.names = names
        """Its parameters -> their names in files of transformers."""
        self.phrases: dict[str, str] = {}
        """What was learnt as several tokens -> those tokens."""
        end = tokenizer.eos
        assert end is not None
        self.end, self.pad = end, end if tokenizer.pad is None else tokenizer.pad

    @property
    def width(self) -> int:
        """D"""
        return self._stack.config.dim

    @property
    def _stack(self) -> Transformer:
        return self.network.stack if isinstance(self.network, TextTower) else self.network

    def ids(self, texts: Sequence[str]) -> Tensor:
        """int64 `[N, T]`, each text cut or filled up to `length`."""
        rows = [self._whole(text) for text in texts]
        rows = [row if len(row) <= self.length else [*row[: self.length - 1], self.end] for row in rows]
        return torch.tensor([[*row, *[self.pad] * (self.length - len(row))] for row in rows])

    def unread(self, text: str) -> str:
        """The end of a text that is too long to be read; empty where all of it is."""
        row = self._whole(text)
        return self.tokenizer.decode(row[self.length - 1 : -1]).strip() if len(row) > self.length else ""

    def _whole(self, text: str) -> list[int]:
        for phrase, tokens in self.phrases.items():
            text = re.sub(rf"{re.escape(phrase)}(?!_\d)", lambda _, t=tokens: t, text)
        # Special tokens in a text are read as such: "!" fills rows up for some of these models, and people write it.
        return self.tokenizer.encode(text, special=True, special_in_text=True)

    def states(self, texts: Sequence[str], skip: int, *, normed: bool) -> Tensor:
        """`[N, T, D]` without the last `skip` layers; `normed` puts the final norm behind them."""
        stack = self._stack
        ids = self.ids(texts).to(next(stack.parameters()).device)
        if skip >= len(stack.blocks):
            raise ConjureError(f"this text encoder has {len(stack.blocks)} layers, cannot leave out {skip}")
        if not skip and normed:
            return stack.hidden(ids)
        x_NTD = stack.hidden(ids, depth=len(stack.blocks) - skip)
        return stack.norm(x_NTD) if normed and stack.norm is not None else x_NTD

    def features(self, texts: Sequence[str]) -> Tensor:
        """`[N, P]`: what stands for each text."""
        assert isinstance(self.network, TextTower)
        return self.network.text_features(self.ids(texts).to(next(self.network.parameters()).device))

    def learn(self, token: str, vectors: Tensor) -> None:
        """A word of one or several tokens whose vectors `[n, D]` were learnt: textual inversion (Gal et al. 2022,
        arXiv 2208.01618)."""
        stack = self._stack
        assert stack.embed is not None
        table = stack.embed.weight
        if self.tokenizer.id(token) is not None:
            raise ConjureError(f"the tokenizer knows '{token}' already", hint="give the file another name")
        if vectors.shape[1] != table.shape[1]:
            raise ConjureError(f"'{token}' was learnt for a text encoder of width {vectors.shape[1]}, this one has "
                               f"{table.shape[1]}", hint="it belongs to another base model")
        tokens = [token, *(f"{token}_{n}" for n in range(1, len(vectors)))]
        self.tokenizer.backend.add_tokens([AddedToken(each, normalized=False) for each in tokens])
        rows = [self.tokenizer.id(each) for each in tokens]
        grown = torch.cat([table, table.new_zeros(max(0, 1 + max(r or 0 for r in rows) - len(table)), table.shape[1])])
        for row, vector in zip(rows, vectors, strict=True):
            grown[row] = vector.to(grown)
        stack.embed = nn.Embedding.from_pretrained(grown)
        if len(tokens) > 1:
            self.phrases[token] = " ".join(tokens)


class Prompts:
    """All text encoders of a picture model."""

    def __init__(self, kind: Kind, readers: Mapping[str, TextReader], width: int = 0) -> None:
        self.kind, self.readers = kind, dict(readers)
        self.width = width
        """Of the states that the denoiser expects, where T5 is not there."""

    @classmethod
    def load(cls, pipeline: Pipeline, width: int = 0) -> Prompts:
        found = {name: open_reader(pipeline, name) for name in diffusers.TEXTS if name in pipeline.parts}
        return cls(pipeline.kind, found, width)

    def __call__(self, texts: Sequence[str], skip: int = 0) -> Condition:
        """What the denoiser is told. `skip` layers of CLIP are left out, over those that always are."""
        first = self.readers["text_encoder"]
        if self.kind == "sd":
            return Condition(context_NTD=first.states(texts, skip, normed=True).float())
        second = self.readers["text_encoder_2"]
        if self.kind == "flux":
            return Condition(context_NTD=second.states(texts, 0, normed=True).float(),
                             pooled_NP=first.features(texts).float())
        both = [reader.states(texts, 1 + skip, normed=False).float() for reader in (first, second)]
        context_NTD, pooled_NP = torch.cat(both, -1), second.features(texts).float()
        if self.kind == "sdxl":
            return Condition(context_NTD=context_NTD, pooled_NP=pooled_NP)
        third = self.readers.get("text_encoder_3")
        if third is None:
            long_NTD = context_NTD.new_zeros(len(texts), LENGTHS["sd3"], self.width)
        else:
            long_NTD = third.states(texts, 0, normed=True).float()
        context_NTD = F.pad(context_NTD, (0, long_NTD.shape[-1] - context_NTD.shape[-1]))
        return Condition(context_NTD=torch.cat([context_NTD, long_NTD], 1),
                         pooled_NP=torch.cat([first.features(texts).float(), pooled_NP], -1))

    def unread(self, text: str) -> tuple[str, int]:
        """The end of a text that no encoder reads, and how many tokens the one does that reads most."""
        longest = max(self.readers.values(), key=lambda reader: reader.length)
        return longest.unread(text), longest.length


class Labels:
    """The classes of a model that reads no text: the same surface as `Prompts`."""

    def __init__(self, count: int, names: Mapping[str, int]) -> None:
        self.count, self.names = count, {name.casefold(): label for name, label in names.items()}
        self.readers: dict[str, TextReader] = {}

    @classmethod
    def load(cls, pipeline: Pipeline, count: int) -> Labels:
        """With the names in model_index.json: `id2label`, several to a label, parted by commas."""
        listed = pipeline.index.get("id2label") or {}
        names = {name.strip(): int(label) for label, text in listed.items() for name in str(text).split(",")}
        return cls(count, names)

    def __call__(self, texts: Sequence[str], skip: int = 0) -> Condition:
        """int64 `[N]`; an empty text is no class."""
        return Condition(context_NTD=torch.tensor([self._label(text) for text in texts]))

    def _label(self, text: str) -> int:
        name = text.strip().casefold()
        if not name:
            return self.count
        if name.isdecimal() and int(name) < self.count:
            return int(name)
        if name not in self.names:
            raise ConjureError(f"this model draws classes, it has none called '{text}'",
                               hint=suggest(name, self.names) if self.names else f"give a number below {self.count}")
        return self.names[name]

    def unread(self, text: str) -> tuple[str, int]:
        """Nothing: a name is known or not."""
        return "", 0


def open_reader(pipeline: Pipeline, name: str) -> TextReader:
    """One text encoder, its weights read."""
    part = pipeline.parts[name]
    tokenizer = open_tokenizer(pipeline, name)
    kind, what = part.config.get("model_type"), f"the {name} of this config"
    if kind == "clip_text_model":
        network, names = clip_tower(part, what)
        return TextReader(network, tokenizer, length_of(tokenizer, network.config.stack.max_length), names)
    if kind not in ("t5", "umt5"):
        raise ConjureError(f"{pipeline.path}: the {name} is a {kind!r}", hint="known are clip_text_model and t5")
    network, names = t5_stack(part, what)
    return TextReader(network, tokenizer, LENGTHS.get(pipeline.kind, length_of(tokenizer, 512)), names)


def open_tokenizer(pipeline: Pipeline, name: str) -> Tokenizer:
    """That of the model's own files; where it has none, CLIP's, which all such models share."""
    if name in pipeline.tokenizers:
        return Tokenizer.load(pipeline.tokenizers[name])
    part = pipeline.parts[name]
    if part.config.get("model_type") != "clip_text_model":
        raise ConjureError(f"{pipeline.path}: the file holds no tokenizer for its {name} (T5)",
                           hint="put the folder of one beside it, called tokenizer_3 (Stable Diffusion 3) or "
                           "tokenizer_2 (Flux)")
    tokenizer = clip_tokenizer("!" if part.config.get("hidden_act") == "gelu" else END)
    if tokenizer.size != part.config["vocab_size"]:
        raise ConjureError(f"{pipeline.path}: the {name} has {part.config['vocab_size']} tokens, CLIP {tokenizer.size}",
                           hint="put the folder of its tokenizer beside the file, called tokenizer")
    return tokenizer


def length_of(tokenizer: Tokenizer, most: int) -> int:
    """Tokens of a text: what tokenizer_config.json says, if the network can read that many."""
    said = tokenizer.parts.config.get("model_max_length")
    return min(most, int(said)) if isinstance(said, int | float) and said > 0 else most


def clip_tower(part: Part, what: str = "a CLIP text encoder") -> tuple[TextTower, Map]:
    """The text tower of CLIP, and its names in files of transformers."""
    family = towers.FAMILIES["clip_text_model"]
    config = family.config(Settings(part.config, family.defaults))
    with torch.device("meta"):
        network = TextTower(config)
    names = family.names(config)
    if part.layout == "original":  # of which a layer and the projection may not be needed
        spare = (f"transformer.resblocks.{config.stack.layers}.*", "text_projection", "logit_scale")
        diffusers.fill(network, open_clip_names(config), part.tensors, what=what, ignore=spare)
    else:
        diffusers.fill(network, names, part.tensors, what=what, prefix=family.prefix, ignore=("logit_scale",))
    return network, names


def t5_stack(part: Part, what: str = "a T5 encoder") -> tuple[Transformer, Map]:
    """The encoder of T5 alone."""
    family = pairs.FAMILIES[str(part.config.get("model_type", "t5"))]
    pair = family.config(Settings(part.config, family.defaults))
    assert isinstance(pair, EncoderDecoderConfig)
    with torch.device("meta"):
        network = Transformer(pair.encoder)
    names = {name.removeprefix("encoder."): rule for name, rule in family.names(pair).items()
             if name.startswith("encoder.")}  # fmt: skip
    diffusers.fill(network, names, part.tensors, what=what, ignore=family.ignore)
    return network, names
