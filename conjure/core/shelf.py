"""Models by name, without torch: `starter/NAME`, a folder, or `org/name[@revision]` in the hub's own cache.

Only `config.json` is read, and file sizes; weights stay closed. Nothing is downloaded here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conjure.core import paths
from conjure.core.errors import ConjureError, suggest

MAX_CONFIG_BYTES = 8 << 20

_STARTER = re.compile(r"starter/([A-Za-z0-9][\w.-]*)")
_HUB = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")
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
    """The folder of a model: a starter, an existing folder, or the snapshot in the hub's cache.

    Unknown names raise `ConjureError` with the nearest known one; a folder that is no model says what it
    lacks.
    """
    text = str(name)
    folder = _starter(text) or _local(name) or _hub(text)
    if folder is None:
        raise _unknown(text)
    if missing := _missing(folder):
        raise ConjureError(f"{text}: expected a model folder, {folder} has no {missing}", hint=_hint(folder))
    return folder


def info(name: str | Path) -> ModelInfo:
    """What the `config.json` of a model says about it."""
    return _describe(str(name), find(name))


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
    snapshot = _snapshot(repo, match[2])
    if snapshot is None and match[2]:
        known = [p.name for p in (*_children(repo / "snapshots"), *_children(repo / "refs"))]
        raise ConjureError(
            f"{match[1]}: revision '{match[2]}' is not in {paths.hub_cache()}", hint=suggest(match[2], known)
        )
    return snapshot


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
    return [*folder.glob("*.safetensors"), *folder.glob("*/*.safetensors")]


def _missing(folder: Path) -> str:
    """What a folder lacks to be a model, in words; empty where it lacks nothing."""
    lacks = []
    if not any((folder / name).is_file() for name in ("config.json", "model_index.json")):
        lacks.append("config.json")
    if not _weights(folder):
        lacks.append("*.safetensors")
    return " and no ".join(lacks)


def _hint(folder: Path) -> str:
    if any(p.suffix in _PICKLES for p in _children(folder)):
        return "pickle files can run code and are never read: look for the model as safetensors"
    inner = [p.name for p in _children(folder) if p.is_dir() and not _missing(p)]
    if inner:
        return f"it holds models: {', '.join(f'{folder}/{name}' for name in inner[:5])}"
    return "`conjure list models` shows what is there"


def _describe(name: str, folder: Path) -> ModelInfo:
    config = read_config(folder)

    def text(*keys: str) -> str:
        return next((config[key] for key in keys if isinstance(config.get(key), str)), "")

    count = config.get("parameters", 0)
    return ModelInfo(
        name=name,
        path=folder,
        task=text("task"),
        kind=text("kind", "model_type", "_class_name"),
        parameters=count if isinstance(count, int) else 0,
        bytes=sum(path.stat().st_size for path in _weights(folder)),
        licence=text("licence", "license"),
        summary=text("summary"),
    )


def _unknown(text: str) -> ConjureError:
    known = [name for name, _ in (*_starters(), *_hub_models())]
    matches = [name for name in known if name.split("/")[-1] == text.split("/")[-1]]
    hint = (
        f"did you mean '{matches[0]}'?" if matches else suggest(text, known) if known else "none is installed"
    )
    if not matches and _HUB.fullmatch(text) and not text.startswith("starter/"):
        name, _, revision = text.partition("@")
        fetch = f"hf download {name}" + (f" --revision {revision}" if revision else "")
        hint += f"; to fetch it into {paths.hub_cache()}: {fetch}"
    return ConjureError(f"unknown model '{text}'", hint=hint)
