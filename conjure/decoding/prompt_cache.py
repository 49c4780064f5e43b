"""What a network has read, kept on disk: the next call with the same beginning does not read it again.

A file holds the state of the cache after a run of tokens, under a name made from the model and these tokens. Files are
written whole or not at all; a broken one is ignored and replaced; of a full folder those go that were used least
recently.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.core.files import write_atomic
from conjure.nn.cache import Cache

if TYPE_CHECKING:
    from conjure.decoding.reader import Reader

FORMAT = 1
LEAST = 32
"""Fewer unread tokens than this are not worth a file."""
NAME = re.compile(r"(\d+)-[0-9a-f]{32}\.safetensors")


class PromptCache:
    """A folder of at most `limit` bytes.

    `model` must differ wherever what a cache holds would: the digest of the weights, their type, and the kind of cache.
    """

    def __init__(self, folder: Path, model: str, limit: int = 2 * 10**9) -> None:
        self.folder, self.model, self.limit = folder, model, limit

    def begun(self, reader: Reader, ids: Sequence[int]) -> Cache:
        """A cache that has read all of `ids` but one at least, from disk as far as it is there.

        What had to be read is written, but for the last token, whose logits are wanted anew each time.
        """
        cache = self._found(reader, ids) or reader.make([ids])
        missing = len(ids) - 1 - cache.length
        if missing >= LEAST:
            ids_BT = torch.tensor([ids[cache.length : -1]], device=cache.padding_B.device)
            reader.network(ids_BT, cache=cache, last_only=True)
            self._store(ids[:-1], cache.state())
        return cache

    def _found(self, reader: Reader, ids: Sequence[int]) -> Cache | None:
        """The cache of the longest beginning that is on disk."""
        names = set(os.listdir(self.folder)) if self.folder.is_dir() else set()
        lengths = {int(match[1]) for name in names if (match := NAME.fullmatch(name))}
        for length in sorted((n for n in lengths if 0 < n < len(ids)), reverse=True):
            path = self._path(ids[:length])
            if path.name not in names:
                continue
            cache = reader.make([ids])
            try:
                cache.restore(load_file(path))
                os.utime(path)
            except (SafetensorError, ConjureError, KeyError, RuntimeError, OSError):
                continue  # broken, or gone meanwhile: what is read instead takes its place
            if cache.length == length:
                return cache
        return None

    def _store(self, ids: Sequence[int], state: dict[str, Tensor]) -> None:
        data = save({name: tensor.cpu().contiguous() for name, tensor in state.items()})
        if len(data) > self.limit:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path(ids), data)
        files = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process may be at the same work
                if NAME.fullmatch(path.name):
                    files.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.limit:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _path(self, ids: Sequence[int]) -> Path:
        key = hashlib.blake2b(f"{FORMAT} {self.model} {' '.join(map(str, ids))}".encode(), digest_size=16)
        return self.folder / f"{len(ids)}-{key.hexdigest()}.safetensors"
