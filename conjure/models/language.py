"""A public model ready for use: logits, hidden states, embeddings, text.

Legend: B rows, T tokens, V vocabulary, D width, N texts.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from conjure.codecs.tokenizer import Tokenizer
from conjure.core.errors import ConjureError, suggest
from conjure.core.files import write_atomic
from conjure.core.machine_speed import best_dtype
from conjure.decoding.generate import Decoding, Generation, Network, generate
from conjure.models import sentence
from conjure.models.checkpoint import Checkpoint
from conjure.models.compiled import Compiled
from conjure.models.eager import Eager
from conjure.models.encoder_decoder import EncoderDecoder
from conjure.models.folder import FORMAT
from conjure.models.headed import Headed
from conjure.models.public.gguf import GgufFile
from conjure.models.public.load import Loading, LoadReport, family_of, laid_out, stored
from conjure.models.public.save import copied, load_transformer
from conjure.models.transformer import Transformer
from conjure.nn.quantised import prepare, quantise
from conjure.nn.rounding import GROUP

Ids = Tensor | Sequence[Sequence[int]]
Held = Literal["fp32", "bf16", "int8", "int4"]
Weights = Literal["fp32", "bf16", "int8", "int4", "auto"]
INPUTS = ("input_ids", "attention_mask", "decoder_input_ids", "token_type_ids", "pixel_values", "input_features")
EMBEDDED_AT_ONCE = 32
COPIED = 1 << 27
"""Parameters up to which a model that also answers questions about itself may be held twice."""


class LanguageModel:
    """What `conjure.load` gives for a model of language, or for a tower that reads pictures or sound."""

    def __init__(
        self, network: Any, config: dict[str, Any], folder: Path, report: LoadReport | None = None, *,
        tokenizer: Tokenizer | None = None, context: int | None = None,
    ) -> None:  # fmt: skip
        self.network, self.config, self.folder, self.report = network, config, folder, report
        self._tokenizer, self._context = tokenizer, context

    @classmethod
    def load(cls, path: str | Path, *, weights: Weights | None = None) -> LanguageModel:
        """From a folder with config.json, safetensors and tokenizer files as the hub has them, or a GGUF file.

        `weights` is the type in which the matrices are held: what they lose in size they gain in speed; "auto" is bf16
        or fp32, whichever a short measurement found faster on this machine. A model with `weights` is there to write:
        its hidden states cannot be asked for.
        """
        path = Path(path)
        if weights == "auto":
            weights = best_dtype()
        if path.suffix == ".gguf":
            file = GgufFile(path)
            network, report = held(laid_out(file.config, file, torch.float32), weights)
            return cls(network, file.config, path, report, tokenizer=file.tokenizer())
        config = read_config(path)
        if config.get("format") == FORMAT:
            return cls._own(path, config, weights)
        family_of(config)
        network, report = held(laid_out(config, Checkpoint(path), torch.float32), weights)
        return cls(network, config, path, report)

    @classmethod
    def _own(cls, folder: Path, config: dict[str, Any], weights: Held | None) -> LanguageModel:
        """A model that conjure trained."""
        if config.get("kind") != "transformer":
            raise ConjureError(f"{folder}: a {config.get('kind')} is no language model", hint="conjure list models")
        length = config.get("data", {}).get("length", 0)
        network = load_transformer(folder, config)
        return cls(network if weights is None else shrunk(network, weights), config, folder, context=length)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Of the model's own files."""
        return Tokenizer.load(self.folder) if self._tokenizer is None else self._tokenizer

    @property
    def family(self) -> str:
        """`model_type` of the config."""
        return self.report.family if self.report is not None else str(self.config.get("kind", ""))

    @property
    def can(self) -> frozenset[str]:
        """What the model is able to do: generate, translate, fill, classify, embed, ..."""
        network = self.network
        if isinstance(network, Compiled):
            return frozenset({"generate"})
        if isinstance(network, Transformer):
            return frozenset({"generate", "embed"})
        if isinstance(network, EncoderDecoder):
            return frozenset({"generate", "rewrite", "embed"})
        if isinstance(network, Headed):
            does = {"masked": "fill", "first": "classify", "last": "classify", "tokens": "tag", "none": "embed"}
            does["tokens"] = "answer" if network.config.answers else "tag"
            return frozenset({does[network.config.head], "embed"})
        return frozenset(getattr(network, "can", ()))

    # ----------------------------------------------------------------------------------------------- tensors in and out
    @torch.inference_mode()
    def logits(
        self,
        input_ids: Ids | None = None,
        attention_mask: Ids | None = None,
        decoder_input_ids: Ids | None = None,
        token_type_ids: Ids | None = None,
        pixel_values: Tensor | None = None,
        input_features: Tensor | None = None,
    ) -> Tensor:
        """float32 `[B, T, V]`; where `attention_mask` is 0, what comes out means nothing."""
        given = self._given(input_ids, attention_mask, decoder_input_ids, token_type_ids, pixel_values, input_features)
        if isinstance(self.network, Transformer):
            return self.network(given["input_ids"], mask_BT=given.get("attention_mask"))
        if isinstance(self.network, Compiled):
            (B, T), mask_BT = given["input_ids"].shape, given.get("attention_mask")
            # What is left of the first token is padding; what is right of the last one changes nothing before it.
            padding = None if mask_BT is None else mask_BT.long().argmax(1).tolist()
            return self.network(given["input_ids"], cache=self.network.cache(B, T, padding), last_only=False)
        return self.network.logits(**given)

    @torch.inference_mode()
    def hidden(
        self,
        input_ids: Ids | None = None,
        attention_mask: Ids | None = None,
        decoder_input_ids: Ids | None = None,
        token_type_ids: Ids | None = None,
        pixel_values: Tensor | None = None,
        input_features: Tensor | None = None,
    ) -> Tensor:
        """The last hidden states, float32 `[B, T, D]`, after the final norm."""
        given = self._given(input_ids, attention_mask, decoder_input_ids, token_type_ids, pixel_values, input_features)
        if isinstance(self.network, Compiled):
            raise ConjureError("a model held in a small type to write gives no hidden states",
                               hint="load it without weights=")
        if isinstance(self.network, Transformer):
            return self.network.hidden(given["input_ids"], mask_BT=given.get("attention_mask")).float()
        return self.network.hidden(**given).float()

    def _given(self, *values: Ids | None) -> dict[str, Tensor]:
        given = {name: torch.as_tensor(value) for name, value in zip(INPUTS, values) if value is not None}
        vocab = self.vocab
        for name in ("input_ids", "decoder_input_ids"):
            ids = given.get(name)
            if ids is None:
                continue
            if ids.dim() != 2 or not ids.numel():
                raise ConjureError(f"{name}: expected ids [rows, tokens] and at least one, got {list(ids.shape)}")
            if vocab and (ids.min() < 0 or ids.max() >= vocab):
                got = f"{int(ids.min())} to {int(ids.max())}"
                raise ConjureError(f"{name}: expected ids from 0 to {vocab - 1}, got {got}")
        return given

    @property
    def vocab(self) -> int:
        """Ids are below this; 0 for models that read no text."""
        config = getattr(self.network, "config", None)
        inner = next((part for name in ("encoder", "stack", "text") if (part := getattr(config, name, None))), config)
        return getattr(inner, "vocab", 0)

    # ------------------------------------------------------------------------------------------------ texts in and out
    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """float32 `[N, D]`, by the pooling that the model's files name, else the mean of its tokens."""
        if isinstance(texts, str) or not texts:
            raise ConjureError("embed: expected a list of texts, and at least one")
        rule = self._sentence
        most = min(each for each in (rule.max_length, self.context, 1 << 30) if each > 0)
        rows = [ids[:most] for ids in self.tokenizer.encode_batch(texts, special=True)]
        if any(not ids for ids in rows):
            raise ConjureError("embed: expected texts with something in them, got an empty one")
        found: list[Tensor | None] = [None] * len(rows)
        order = sorted(range(len(rows)), key=lambda n: len(rows[n]))  # rows of like length waste no padding
        for start in range(0, len(order), EMBEDDED_AT_ONCE):
            chosen = order[start : start + EMBEDDED_AT_ONCE]
            ids_BT, mask_BT = padded([rows[n] for n in chosen], self.pad)
            features = getattr(self.network, "text_features", None)
            if features is not None:
                vectors = features(ids_BT, mask_BT).float()
            else:
                vectors = rule(self.hidden(ids_BT, mask_BT), mask_BT)
            for n, vector in zip(chosen, vectors, strict=True):
                found[n] = vector
        return torch.stack([vector for vector in found if vector is not None])

    @functools.cached_property
    def _sentence(self) -> sentence.Sentence:
        return sentence.read(self.folder) if self.folder.is_dir() else sentence.Sentence()

    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int] | None = None, *,
        on_token: Callable[[int, int, str], None] | None = None, constraints: Sequence[Any] | None = None,
        draft: LanguageModel | None = None, **knobs: Any,
    ) -> list[Generation]:  # fmt: skip
        """What follows each prompt; of an encoder-decoder, what it makes of each.

        `knobs` are those of `decoding.settings.Decoding`; what they leave open, generation_config.json decides.
        """
        if isinstance(prompts, str) or not prompts:
            raise ConjureError("generate: expected a list of prompts, and at least one")
        rows = [self.tokenizer.encode(prompt, special=True) for prompt in prompts]
        return self.continued(rows, seeds, on_token=on_token, constraints=constraints, draft=draft, **knobs)

    def continued(
        self, rows: Sequence[Sequence[int]], seeds: Sequence[int] | None = None, *,
        on_token: Callable[[int, int, str], None] | None = None, constraints: Sequence[Any] | None = None,
        draft: LanguageModel | None = None, **knobs: Any,
    ) -> list[Generation]:  # fmt: skip
        """As `generate`, for prompts that are ids already."""
        decoding = self.decoding(**knobs)
        seeds = list(range(len(rows))) if seeds is None else list(seeds)
        if isinstance(self.network, EncoderDecoder):
            return self._rewritten(rows, decoding, seeds, on_token, constraints)
        if "generate" not in self.can:
            raise ConjureError(f"a {self.family} of this kind writes no text",
                               hint=f"it can {', '.join(sorted(self.can))}")
        return generate(
            self.writer_for(decoding), self.tokenizer, [self.begun(row) for row in rows], decoding,
            seeds=seeds, end=self.end,
            context=self.context, constraints=constraints, draft=None if draft is None else draft.writer,
            on_token=on_token,
        )  # fmt: skip

    def begun(self, row: Sequence[int]) -> list[int]:
        """A prompt with something before its first token: what we train reads a border between documents there."""
        first = self.tokenizer.end if self.report is None else self.tokenizer.bos
        return list(row) if first is None or (row and self.report is not None) else [first, *row]

    def _rewritten(
        self, rows: Sequence[Sequence[int]], decoding: Decoding, seeds: Sequence[int],
        on_token: Callable[[int, int, str], None] | None, constraints: Sequence[Any] | None,
    ) -> list[Generation]:  # fmt: skip
        assert isinstance(self.network, EncoderDecoder)
        start = self._said("decoder_start_token_id")
        start = self.tokenizer.bos if start is None else start
        if start is None:
            raise ConjureError("config.json: expected decoder_start_token_id, there is none")
        found = []
        for n, (row, seed) in enumerate(zip(rows, seeds, strict=True)):
            ids_BM = torch.tensor([list(row)])
            if self.context and ids_BM.shape[1] > self.context:
                raise ConjureError(f"this model reads at most {self.context} tokens, got {ids_BM.shape[1]}",
                                   hint="shorten the text, or give it in parts")
            with torch.inference_mode():
                reading = self.network.reading(self._given(ids_BM)["input_ids"])

            def told(_: int, token: int, text: str, n: int = n) -> None:
                assert on_token is not None
                on_token(n, token, text)

            found += generate(
                reading, self.tokenizer, [[start]], decoding, seeds=[seed], end=self.end, context=self.context,
                constraints=None if constraints is None else [constraints[n]], on_token=told if on_token else None,
            )  # fmt: skip
        return found

    def decoding(self, **knobs: Any) -> Decoding:
        """The knobs over what generation_config.json says."""
        known = [field.name for field in fields(Decoding)]
        for name in knobs:
            if name not in known:
                raise ConjureError(f"generate: unknown option '{name}'", hint=suggest(name, known))
        said = self._generation
        base: dict[str, Any] = {"temperature": 0.0}
        if said.get("do_sample"):
            names = ("temperature", "top_k", "top_p", "min_p", "typical_p")
            base = {"temperature": 1.0, "top_k": 50, **{n: said[n] for n in names if said.get(n) is not None}}
        for ours, theirs in (("repetition_penalty",) * 2, ("no_repeat_ngram", "no_repeat_ngram_size"),
                             ("beams", "num_beams"), ("length_penalty",) * 2, ("tokens", "max_new_tokens"),
                             ("min_tokens", "min_new_tokens")):  # fmt: skip
            if said.get(theirs) is not None:
                base[ours] = said[theirs]
        if said.get("forced_bos_token_id") is not None:
            base["forced_first"] = (said["forced_bos_token_id"],)
        for ours, theirs in (("suppress", "suppress_tokens"), ("suppress_first", "begin_suppress_tokens")):
            base[ours] = tuple(said.get(theirs) or ())
        if said.get("bad_words_ids"):
            base["suppress"] = (*base["suppress"], *(ids[0] for ids in said["bad_words_ids"] if len(ids) == 1))
        if knobs.get("beams", base.get("beams", 1)) > 1:
            base = {n: v for n, v in base.items() if n not in ("temperature", "top_k", "top_p", "min_p", "typical_p")}
        return replace(Decoding(), **{**base, **knobs})

    @functools.cached_property
    def writer(self) -> Network:
        """The network that decodes. Of small models a second, compiled copy; models loaded with `weights` are compiled
        in place. Where nothing can be compiled, the same weights in a lean loop, for the networks that this knows."""
        network = self.network
        if not isinstance(network, Transformer):
            return cast("Network", network)
        parameters = list(network.parameters())
        plain = all(p.is_cpu and p.is_floating_point() for p in parameters)
        if plain and sum(p.numel() for p in parameters) <= COPIED and not Compiled.supports(network.config):
            return cast("Network", Compiled(copy.deepcopy(network), "fp32"))
        return cast("Network", network if Eager.supports(network) else Eager(network))

    def writer_for(self, decoding: Decoding) -> Network:
        """The network that decodes so: contrastive search looks at hidden states, which the lean ones do not give."""
        return cast("Network", self.network) if decoding.contrastive_alpha > 0 else self.writer

    @property
    def context(self) -> int:
        """The most tokens that the network reads; 0 where there is no end."""
        if self._context is not None:
            return self._context
        config = self.network.config
        inner = getattr(config, "encoder", getattr(config, "stack", config))
        said = self.config.get("max_position_embeddings") or self.config.get("n_positions") or 0
        return getattr(inner, "max_length", 0) or (said if isinstance(said, int) else 0)

    @functools.cached_property
    def end(self) -> tuple[int, ...]:
        """Ids that end a text."""
        said = self._said("eos_token_id")
        if said is None:
            said = self.tokenizer.end if self.tokenizer.eos is None else self.tokenizer.eos
        return () if said is None else tuple(said) if isinstance(said, list) else (said,)

    @property
    def pad(self) -> int:
        """The id that fills rows up."""
        said = self._said("pad_token_id")
        return said if isinstance(said, int) and said >= 0 else self.tokenizer.pad or 0

    @functools.cached_property
    def _generation(self) -> dict[str, Any]:
        """generation_config.json, over the same keys of config.json."""
        file = self.folder / "generation_config.json"
        said = json.loads(file.read_text(encoding="utf-8")) if self.folder.is_dir() and file.is_file() else {}
        return {k: v for each in (self.config, said) for k, v in each.items() if v is not None}

    def _said(self, name: str) -> Any:
        return self._generation.get(name)

    def save(self, folder: str | Path) -> Path:
        """Written in the hub's own layout, with the files of its tokenizer, so that other libraries open it."""
        folder = Path(folder)
        if self.report is None or not self.folder.is_dir():
            raise ConjureError("only models that were read from a folder of the hub's layout can be saved in it")
        _, family = family_of(self.config)
        tensors = dict(stored(self.network.state_dict(), self.network.config, family))
        copied(self.folder, folder, tensors, self.report.ignored)
        write_atomic(folder / "config.json", (json.dumps(self.config, indent=2) + "\n").encode())
        return folder


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a public model."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes().decode("utf-8"))
    except OSError:
        raise ConjureError(f"expected a model folder with config.json, but {path} cannot be read",
                           hint="`conjure models list` shows what is there") from None
    except ValueError as error:
        raise ConjureError(f"{path}: no valid JSON: {error}", hint="fetch the model again") from None
    if not isinstance(config, dict):
        raise ConjureError(f"{path}: expected a JSON object, got {type(config).__name__}")
    return config


def padded(rows: Sequence[Sequence[int]], pad: int, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """(ids, mask) int64 `[B, T]`, every row filled up to the longest."""
    longest = max(map(len, rows))
    ids_BT = torch.full((len(rows), longest), pad)
    mask_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    for b, row in enumerate(rows):
        at = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids_BT[b, at] = torch.tensor(list(row), dtype=torch.long)
        mask_BT[b, at] = 1
    return ids_BT, mask_BT


def held(loading: Loading, weights: Held | None) -> tuple[Any, LoadReport]:
    """The network with its weights in memory, in float32 unless `weights` says otherwise: read layer by layer then, so
    that the float matrices of one layer alone are there at any time."""
    network = loading.network
    if weights == "bf16":
        loading.dtype = network.compute_dtype = torch.bfloat16
    if weights is None or not isinstance(network, Transformer):
        loading.fill()
        network.requires_grad_(False)
        return (network if weights is None else shrunk(network, weights)), loading.report
    loading.packed = weights if weights in ("int8", "int4") else None
    layers = [f"blocks.{i}" for i in range(network.config.layers)]
    tops = [name for name, _ in network.named_children() if name not in ("blocks", "embed", "head")]
    for name in (*tops, *(name for name, _ in network.named_parameters(recurse=False))):
        loading.fill(name)
    if not Compiled.supports(network.config):
        loading.dtype = None  # it packs from whatever type the file has
        return Compiled(network, weights, fill=loading.fill), loading.report
    for name in (*layers, "embed", "head"):
        loading.fill(name)
        if name in layers:
            quantise(network.get_submodule(name), weights, group=group_of(weights))
    return shrunk(network.requires_grad_(False), weights), loading.report


def shrunk(network: Any, weights: Held) -> Any:
    """A network that is in memory, its matrices in another type: in compiled code where that can run it, else with
    PyTorch's own kernels."""
    if isinstance(network, Transformer) and not Compiled.supports(network.config):
        return Compiled(network, weights)
    if weights in ("bf16", "fp32"):
        network.compute_dtype = torch.bfloat16 if weights == "bf16" else torch.float32
        return quantise(network, weights)
    quantise(network, weights, group=group_of(weights), embeddings="int8" if isinstance(network, Transformer) else None)
    return prepare(network)


def group_of(weights: Held) -> int:
    """PyTorch's int8 kernels know one scale for a row, its int4 kernel one for 32 values."""
    return 0 if weights == "int8" else GROUP
