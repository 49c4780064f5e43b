"""Which files of a repository on the hub running its model takes: configs, tokenizer, card, and one set of weights.

Everything else is left there: pickles, other frameworks, other precisions, the same weights a second time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from conjure.core.errors import ConjureError, suggest


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file of a repository: its path there, bytes, and checksum (SHA-256 of large files, else git's SHA-1)."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a repository holds at one commit. `revision` is what was asked for; `licence` is what its card says."""

    repo: str
    revision: str
    commit: str
    files: tuple[RemoteFile, ...]
    licence: str
    gated: bool


_BESIDE = re.compile(
    r"(generation_|tokenizer_|(pre)?processor_|video_preprocessor_|sentence_bert_|adapter_)?config\.json"
    r"|tokenizer\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|target_vocab\.json|merges\.txt"
    r"|normalizer\.json|[\w.-]+\.(model|spm)|config_sentence_transformers\.json|modules\.json|model_index\.json"
    r"|config\.json|chat_template\.jinja|chat_template\.json|additional_chat_templates/[\w.-]+\.jinja"
    r"|\d+_[A-Z][A-Za-z]*/(config\.json|model\.safetensors)|scheduler/scheduler_config\.json"
    r"|README\.md|(LICEN[SC]E|COPYING|NOTICE|USE_POLICY)([._-][\w.-]*)?",
)
_UNUSED = {"safety_checker", "feature_extractor", "image_encoder", "image_processor"}
"""Parts of picture models that nothing here runs."""
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-\d{5}\.safetensors")
_VARIANT = re.compile(r"(?P<stem>[^.]+)\.(?P<variant>[\w-]+?)(-\d{5}-of-\d{5})?\.safetensors(\.index\.\w+\.json)?")
_ADAPTER = re.compile(r"adapter\.(?P<code>[A-Za-z][\w-]*)\.safetensors")
_PICKLE = re.compile(r".*\.(bin|pt|pth|ckpt|pkl|pickle)")


def choose(listing: Listing, gguf: str = "") -> tuple[RemoteFile, ...]:
    """The files of a repository that running its model takes: configs, tokenizer, card, and one set of weights."""
    by_name = {file.name: file for file in listing.files}
    beside = [name for name in by_name if _BESIDE.fullmatch(name)]
    ggufs = [name for name in by_name if name.endswith(".gguf")]
    if gguf:
        weights = _gguf(listing.repo, gguf, ggufs)
    else:
        weights = _safetensors(by_name, "")
        if "model_index.json" in by_name:  # a pipeline: each part is a folder with its own config
            parts = {name.split("/")[0] for name in by_name if name.count("/") == 1} - _UNUSED
            if any(_safetensors(by_name, f"{folder}/") for folder in parts):
                weights = []  # the same once more in one file
            for folder in sorted(parts):
                inner = [name for name in by_name if name.startswith(f"{folder}/")]
                beside += [name for name in inner if _BESIDE.fullmatch(name.split("/")[1])]
                weights += _safetensors(by_name, f"{folder}/")
        if not weights:
            raise _no_weights(listing, ggufs)
        if not {"config.json", "model_index.json", "adapter_config.json"} & set(beside):
            raise ConjureError(
                f"{listing.repo} has no config.json", hint="it is no model that conjure knows how to run"
            )
    return tuple(by_name[name] for name in sorted({*beside, *weights}, key=lambda name: (by_name[name].size, name)))


def adapter(listing: Listing, which: Callable[[Collection[str]], str]) -> RemoteFile:
    """The file of a language (MMS: `adapter.deu.safetensors`), which `choose` leaves there; `which` picks one of the
    codes that there are. `ConjureError` where the model has none."""
    there = {match["code"]: file for file in listing.files if (match := _ADAPTER.fullmatch(file.name))}
    if not there:
        raise ConjureError(f"{listing.repo} has no files of languages (adapter.CODE.safetensors)",
                           hint="leave --language out: what the model knows is all in its weights")  # fmt: skip
    return there[which(sorted(there))]


def _safetensors(names: Iterable[str], folder: str) -> list[str]:
    """The weights in one folder, once: the whole file before its shards, the plain name before variants (fp16)."""
    inner = [name.removeprefix(folder) for name in names if name.startswith(folder)]
    inner = [name for name in inner if "/" not in name and not name.startswith("consolidated")]
    found = [name for name in inner if name.endswith(".safetensors")]
    adapter = [name for name in found if name == "adapter_model.safetensors"]
    found = [name for name in found if name not in adapter]
    plain = [name for name in found if not _VARIANT.fullmatch(name)]
    if not plain and found:
        variants = sorted({match["variant"] for name in found if (match := _VARIANT.fullmatch(name))})
        best = next((each for each in ("bf16", "fp32", "fp16") if each in variants), variants[0])
        plain = [name for name in found if (match := _VARIANT.fullmatch(name)) and match["variant"] == best]
    shards = [(match["stem"], name) for name in plain if (match := _SHARD.fullmatch(name))]
    whole = sorted(set(plain) - {name for _, name in shards})
    if "model.safetensors" in whole or (whole and not shards):
        chosen = ["model.safetensors"] if "model.safetensors" in whole else whole[:1]
    else:
        stem = "model" if any(each == "model" for each, _ in shards) else min(shards)[0] if shards else ""
        chosen = [name for each, name in shards if each == stem]
        plain_stem, _, variant = stem.partition(".")
        indices = (f"{stem}.safetensors.index.json", f"{plain_stem}.safetensors.index.{variant}.json")
        chosen += [name for name in indices if name in inner]
    return [folder + name for name in (chosen or adapter)]


def _gguf(repo: str, wanted: str, there: list[str]) -> list[str]:
    """The one GGUF file that `wanted` names: its name, or a part of it between separators, such as Q4_K_M."""
    exact = [name for name in there if wanted in (name, name.split("/")[-1])]
    word = re.compile(rf"(.*[-._/])?{re.escape(wanted)}([-._].*)?", re.IGNORECASE)
    found = exact or [name for name in there if word.fullmatch(name.removesuffix(".gguf"))]
    if len(found) == 1:
        return found
    if len(found) > 1:
        parts = all(re.search(r"-\d{5}-of-\d{5}\.gguf$", name) for name in found)
        problem = "comes in parts, which are not read" if parts else f"fits {len(found)} files"
        raise ConjureError(
            f"{repo}: --gguf {wanted} {problem}: {', '.join(found[:10])}",
            hint="choose another quantisation" if parts else "name the whole file",
        )
    raise ConjureError(f"{repo}: no GGUF file fits '{wanted}'", hint=suggest(wanted, there))


def _no_weights(listing: Listing, ggufs: list[str]) -> ConjureError:
    names = [file.name for file in listing.files]
    if ggufs:
        return ConjureError(
            f"{listing.repo} has GGUF files only: {', '.join(ggufs[:20])}",
            hint="choose one: --gguf Q4_K_M, or its name",
        )
    if pickles := [name for name in names if _PICKLE.fullmatch(name)]:
        return ConjureError(
            f"{listing.repo} has its weights as pickles only ({pickles[0]}), which can run code when opened; "
            "they are never read",
            hint=f"look for the model as safetensors: the hub's converter may have offered it as a change, "
            f"conjure models get {listing.repo}@refs/pr/1; or take another repository of the same model",
        )
    if any(name.startswith("consolidated") for name in names):
        return ConjureError(
            f"{listing.repo} has its weights only as consolidated.*, a form of its maker's own",
            hint="look for the same model in the form of transformers",
        )
    return ConjureError(f"{listing.repo} has no weights (*.safetensors)", hint="take another repository or revision")
