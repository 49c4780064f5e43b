"""Models by name, without torch: `starter/NAME`, a folder, or `org/name[@revision]` in the hub's own cache.

A GGUF file is a model too: by its path, or as `org/name/FILE.gguf[@revision]`; so is a safetensors file with a whole
picture model in it. Only `config.json` (or `model_index.json`) is read, the header of the card, and file sizes; weights
stay closed, except that `info` counts parameters by the head of their files.
Nothing is downloaded here: that is `conjure.core.hub`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conjure.core import paths
from conjure.core.errors import ConjureError, suggest

MAX_CONFIG_BYTES = 8 << 20
MAX_CARD_BYTES = 1 << 20
MAX_HEAD_BYTES = 100_000_000  # of a safetensors file: its own format's limit

_STARTER = re.compile(r"starter/([A-Za-z0-9][\w.-]*)")
_HUB = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/([\w./-]+\.(?:gguf|safetensors)))?(?:@([\w./-]+))?")
_TASKS = {
    "ForCausalLM": "text_to_text",
    "LMHeadModel": "text_to_text",
    "ForConditionalGeneration": "text_to_text",
    "MarianMTModel": "translate",
    "ForMaskedLM": "fill",
    "ForSequenceClassification": "classify",
}
"""How the class names of public models end -> the task; a config of ours names its task itself."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True)
class ModelInfo:
    """One model on this machine. `parameters` is 0 where its config does not say; `bytes` counts its
    weights."""

    name: str
    path: Path
    task: str
    kind: str
    parameters: int
    bytes: int
    licence: str
    summary: str
    revision: str = ""
    """The commit, of what comes from the hub."""


def installed() -> list[ModelInfo]:
    """The starters, then what the hub's cache holds, by name; folders that are no models are passed over."""
    found = []
    for name, folder in [*_starters(), *_hub_models()]:
        if not _missing(folder):
            try:
                found.append(_describe(name, folder))
            except ConjureError:  # a broken config.json must not hide the other models; `find` will say it
                continue
    return found


def find(name: str | Path) -> Path:
    """The folder of a model: a starter, an existing folder, or the snapshot in the hub's cache; a GGUF or safetensors
    file itself.

    Unknown names raise `ConjureError` with the nearest known one; a folder that is no model says what it
    lacks.
    """
    text = str(name)
    folder = _starter(text) or _local(name) or _hub(text)
    if folder is None:
        raise _unknown(text)
    if folder.is_file():
        return folder
    if missing := _missing(folder):
        raise ConjureError(f"{text}: expected a model folder, {folder} has no {missing}", hint=_hint(folder))
    return folder


def info(name: str | Path) -> ModelInfo:
    """What a model says about itself, its parameters counted where its config does not say."""
    path = find(name)
    found = _describe(str(name), path)
    return found if found.parameters else replace(found, parameters=_count(_weights(path)))


def names(text: str) -> tuple[str, str] | None:
    """`org/name[@revision]` in its two parts (the revision may be empty); None for what is no name of the hub."""
    match = _HUB.fullmatch(text)
    if not match or text.startswith("starter/") or match[2] or ".." in text:
        return None
    return match[1], match[3] or ""


def gguf_file(path: Path) -> Path | None:
    """The GGUF file at `path`: itself, or the only one in a folder without safetensors; None where there is none.

    Several raise `ConjureError` with their names.
    """
    if path.is_file():
        return path if path.suffix == ".gguf" else None
    found = sorted(path.glob("*.gguf"))
    if not found or any(path.glob("*.safetensors")):
        return None
    if len(found) > 1:
        listed = ", ".join(each.name for each in found[:20])
        raise ConjureError(f"{path}: expected one GGUF file, there are {len(found)}: {listed}", hint="name the file")
    return found[0]


def is_picture_model(path: Path) -> bool:
    """Whether what lies here should be a public picture model: a folder in diffusers' layout, or a safetensors file."""
    if path.is_file():
        return path.suffix == ".safetensors"
    return (path / "model_index.json").is_file() and not (path / "config.json").is_file()


def card_header(folder: Path) -> dict[str, str]:
    """The plain values at the top level of the YAML header of a model card; empty where there is no card or header.

    A list gives its first entry. Only what the hub's own cards use is understood: no YAML reader is needed to list
    models.
    """
    path = folder / "README.md"
    if not path.is_file() or path.stat().st_size > MAX_CARD_BYTES:
        return {}
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    header: dict[str, str] = {}
    last = ""
    for line in lines[1:]:
        if line.strip() == "---":
            return header
        if pair := re.match(r"([\w-]+):\s*(.*)", line):
            last, header[pair[1]] = pair[1], pair[2].split(" #")[0].strip().strip("'\"")
        elif (entry := re.match(r"\s*-\s+(.+)", line)) and last and not header[last]:
            header[last] = entry[1].strip().strip("'\"")
    return {}  # a header that does not end is none


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a model folder (or `model_index.json`) as plain values."""
    path = next(p for p in (folder / "config.json", folder / "model_index.json") if p.is_file())
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConjureError(f"{path}: expected at most {MAX_CONFIG_BYTES >> 20} MiB")
        data = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ConjureError(f"{path}: could not be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConjureError(f"{path}: no valid JSON: {error}", hint="fetch or write the model again") from None
    if not isinstance(data, dict):
        raise ConjureError(f"{path}: expected a JSON object, got {type(data).__name__}")
    return data


# -- where they lie ------------------------------------------------------------------------------------------


def _starters() -> Iterator[tuple[str, Path]]:
    root = paths.starters_dir()
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if folder.is_dir() and _STARTER.fullmatch(f"starter/{folder.name}"):
            yield f"starter/{folder.name}", folder


def _hub_models() -> Iterator[tuple[str, Path]]:
    root = paths.hub_cache()
    for repo in sorted(root.glob("models--*--*")) if root.is_dir() else []:
        if snapshot := _snapshot(repo, None):
            yield "/".join(repo.name.split("--")[1:]), snapshot


def _starter(text: str) -> Path | None:
    match = _STARTER.fullmatch(text)
    folder = paths.starters_dir() / match[1] if match else None
    return folder if folder and folder.is_dir() else None


def _local(name: str | Path) -> Path | None:
    folder = Path(name)
    if folder.is_file() and folder.suffix == ".gguf":
        return folder
    if folder.is_file() and folder.suffix == ".safetensors" and not (folder.parent / "config.json").is_file():
        return folder
    if folder.is_file() and folder.suffix in _PICKLES:
        raise ConjureError(
            f"{name}: pickle files can run code and are never read", hint="look for the model as safetensors"
        )
    if folder.is_file():
        raise ConjureError(
            f"{name}: expected a model folder, this is a file", hint="name the folder it lies in"
        )
    return folder if str(name) and folder.is_dir() else None


def _hub(text: str) -> Path | None:
    match = _HUB.fullmatch(text)
    if not match:
        return None
    repo = paths.hub_cache() / f"models--{match[1].replace('/', '--')}"
    if not repo.is_dir():
        return None
    snapshot = _snapshot(repo, match[3])
    if snapshot is None and match[3]:
        known = [p.name for p in (*_children(repo / "snapshots"), *_children(repo / "refs"))]
        raise ConjureError(
            f"{match[1]}: revision '{match[3]}' is not in {paths.hub_cache()}",
            hint=f"{suggest(match[3], known)}; to fetch it: conjure models get {match[1]}@{match[3]}",
        )
    if snapshot is None or not match[2]:
        return snapshot
    file = snapshot / match[2]
    if ".." in match[2] or not file.is_file():
        there = [each.name for each in sorted(snapshot.glob(f"*{Path(match[2]).suffix}"))]
        fetch = f"conjure models get {match[1]}" + (f" --gguf {match[2]}" if match[2].endswith(".gguf") else "")
        raise ConjureError(f"{text}: there is no such file in {snapshot}", hint=f"{suggest(match[2], there)}; {fetch}")
    return file


def _snapshot(repo: Path, revision: str | None) -> Path | None:
    """The folder of a revision: a branch or tag, or the start (7 letters or more) of a commit; without one
    `main`, else the only or newest snapshot."""
    snapshots = repo / "snapshots"
    reference = repo / "refs" / (revision or "main")
    if ".." not in (revision or "") and reference.is_file():
        commit = reference.read_text("ascii", "replace").strip()
        if re.fullmatch(r"[\w.-]+", commit) and (snapshots / commit).is_dir():
            return snapshots / commit
    there = _children(snapshots)
    if revision is not None:
        if len(revision) < 7:
            return next((p for p in there if p.name == revision), None)
        matching = [p for p in there if p.name.startswith(revision)]
        return matching[0] if len(matching) == 1 else None
    return max(there, key=lambda p: p.stat().st_mtime, default=None)


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


# -- what a folder is ----------------------------------------------------------------------------------------


def _weights(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    return [*folder.glob("*.safetensors"), *folder.glob("*/*.safetensors")] or [*folder.glob("*.gguf")]


def _missing(folder: Path) -> str:
    """What a folder lacks to be a model, in words; empty where it lacks nothing."""
    lacks = []
    weights = _weights(folder)
    if weights and weights[0].suffix == ".gguf":  # it holds its config itself
        return ""
    if not any((folder / name).is_file() for name in ("config.json", "model_index.json")):
        lacks.append("config.json")
    if not weights:
        lacks.append("*.safetensors")
    return " and no ".join(lacks)


def _hint(folder: Path) -> str:
    if any(p.suffix in _PICKLES for p in _children(folder)):
        return "pickle files can run code and are never read: look for the model as safetensors"
    inner = [p.name for p in _children(folder) if p.is_dir() and not _missing(p)]
    if inner:
        return f"it holds models: {', '.join(f'{folder}/{name}' for name in inner[:5])}"
    return "`conjure list models` shows what is there"


def _describe(name: str, path: Path) -> ModelInfo:
    folder, weights = (path.parent if path.is_file() else path), _weights(path)
    gguf = bool(weights) and weights[0].suffix == ".gguf"
    config: dict[str, Any] = {"model_type": "gguf"} if gguf else {"kind": "single file"} if path.is_file() else \
        read_config(folder)

    def text(*keys: str) -> str:
        return next((config[key] for key in keys if isinstance(config.get(key), str)), "")

    count = config.get("parameters", 0)
    ours = "format" in config
    return ModelInfo(
        name=name,
        path=path,
        task=text("task") or ("draw" if is_picture_model(path) else _task(config, gguf)),
        kind=text("kind", "model_type", "_class_name"),
        parameters=count if isinstance(count, int) else 0,
        bytes=sum(each.stat().st_size for each in weights),
        licence=text("licence", "license") or ("" if ours else _licence(card_header(folder))),
        summary=text("summary"),
        revision=folder.name if folder.parent.name == "snapshots" else "",
    )


def _task(config: dict[str, Any], gguf: bool) -> str:
    """The task of a public model, by the class that its config names; empty where that says nothing."""
    if gguf:
        return "text_to_text"
    listed = config.get("architectures")
    name = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], str) else ""
    return next((task for ending, task in _TASKS.items() if name.endswith(ending)), "")


def _licence(header: dict[str, str]) -> str:
    """The licence of a card's header; "other" gives its name."""
    return header.get("license_name") or "other" if header.get("license") == "other" else header.get("license", "")


def _count(weights: list[Path]) -> int:
    """How many numbers lie in safetensors files, by their heads alone; 0 where one cannot be read or is none."""
    total = 0
    for path in weights:
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if path.suffix != ".safetensors" or length > MAX_HEAD_BYTES:
                    return 0
                head = json.loads(file.read(length))
            total += sum(math.prod(each["shape"]) for name, each in head.items() if name != "__metadata__")
        except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
            return 0
    return total


def _unknown(text: str) -> ConjureError:
    known = [name for name, _ in (*_starters(), *_hub_models())]
    matches = [name for name in known if name.split("/")[-1] == text.split("/")[-1]]
    hint = (
        f"did you mean '{matches[0]}'?" if matches else suggest(text, known) if known else "none is installed"
    )
    if _HUB.fullmatch(text) and not text.startswith("starter/"):
        hint += f"; to fetch it into {paths.hub_cache()}: {_how_to_get(text)}"
    return ConjureError(f"unknown model '{text}'", hint=hint)


def _how_to_get(text: str) -> str:
    match = _HUB.fullmatch(text)
    assert match is not None
    name = match[1] + (f"@{match[3]}" if match[3] else "")
    return f"conjure models get {name}" + (f" --gguf {match[2]}" if match[2] else "")
