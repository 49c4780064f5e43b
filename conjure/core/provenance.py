"""How a file was made, as one small record that travels inside the file.

The record holds everything `conjure remake` needs and no time stamp, so that the same call gives the same
bytes. `source_type` is an IPTC term, which other programs know:
https://cv.iptc.org/newscodes/digitalsourcetype/
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError

_TERMS = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TRAINED_MEDIA = f"{_TERMS}trainedAlgorithmicMedia"
COMPOSITE_MEDIA = f"{_TERMS}compositeWithTrainedAlgorithmicMedia"
"""A file of somebody's, changed by a trained model."""
ENHANCED_MEDIA = f"{_TERMS}algorithmicallyEnhanced"
"""A file of somebody's, changed by arithmetic alone."""
MAX_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class Record:
    """One file's making. `inputs` are `{"kind", "text" or "name", "digest"}` each, `weights` is the digest of
    the model's weights, `seeds[index]` is the seed of this very file."""

    version: str
    task: str
    model: str
    weights: str
    inputs: tuple[dict[str, str], ...]
    options: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    index: int = 0
    source_type: str = TRAINED_MEDIA

    def __post_init__(self) -> None:
        if self.seeds and not 0 <= self.index < len(self.seeds):
            raise ConjureError(f"index {self.index} points at none of {len(self.seeds)} seeds")

    @property
    def seed(self) -> int | None:
        """The seed of this very file."""
        return self.seeds[self.index] if self.seeds else None

    @property
    def prompt(self) -> str:
        """The texts among the inputs, one a line."""
        return "\n".join(each["text"] for each in self.inputs if "text" in each)

    def to_json(self) -> str:
        """One line of ASCII JSON with sorted keys."""
        try:
            text = json.dumps(to_dict(self), sort_keys=True, allow_nan=False)
        except ValueError:
            raise ConjureError("provenance: expected finite numbers in the options, got inf or nan") from None
        if len(text) > MAX_CHARACTERS:
            raise ConjureError(
                f"provenance: expected at most {MAX_CHARACTERS:,} characters, got {len(text):,}",
                hint="name a long input by its digest, or write without provenance",
            )
        return text

    @staticmethod
    def from_json(text: str | bytes) -> Record:
        """The record in a JSON text that anyone may have written: `ConjureError` for whatever is no
        record."""
        if len(text) > MAX_CHARACTERS:
            raise ConjureError(
                f"provenance: expected at most {MAX_CHARACTERS:,} characters, got {len(text):,}"
            )
        try:
            data = json.loads(text, parse_constant=_no_constant)
            json.dumps(data, ensure_ascii=False).encode(
                "utf-8"
            )  # lone surrogates cannot be printed or written
        except (ValueError, RecursionError) as error:
            raise ConjureError(
                f"provenance: expected a JSON record, got something else: {error}"[:300]
            ) from None
        return Record.from_data(data)

    @staticmethod
    def from_data(data: Any) -> Record:
        """The record in plain values, checked."""
        if not isinstance(data, Mapping):
            raise ConjureError("provenance: expected keys and values", hint="the record is damaged")
        return from_dict(Record, data, where="provenance")


def digest(data: bytes) -> str:
    """`sha256:<hex>` of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_file(path: str | Path) -> str:
    """`sha256:<hex>` of a file, read in pieces."""
    try:
        with open(path, "rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise ConjureError(f"{path}: could not be read: {error.strerror or error}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
