"""GGUF files (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) read as if they were folders of the hub.

A GGUF file holds config, tokenizer and weights together, in llama.cpp's names and layouts. `GgufFile` gives them back
in the hub's: a config.json, the tensor names of `*.safetensors`, rows in their old order. Nothing is read before it is
asked for; matrices are dequantised in pieces, so no more memory is used than the result takes.

Shapes are those of the hub: rows are outputs, unless the family stores (in, out), as GPT-2 does.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from conjure.core.errors import ConjureError, suggest
from conjure.models.public.gguf_families import Place, Source, architecture

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor

    from conjure.codecs.tokenizer import Tokenizer

GROUP = 32
"""Inputs that share one scale in Q8_0 and Q4_0."""
_PIECE = 1 << 22  # values dequantised at a time: 16 MiB in float32
_BROKEN = "it was cut off or is of another kind; fetch it again"


class GgufFile:
    """One GGUF file. `config` is what config.json of the same model would say; `names()` are its tensors there.

    Raises `ConjureError` for what is no whole GGUF file, for parts of a split one, and for unknown architectures.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reader = _open(self.path)
        self.metadata = _metadata(self._reader, self.path)
        if self.metadata.get("split.count", 0) not in (0, 1):
            raise ConjureError(f"{path}: one of {self.metadata['split.count']} parts", hint="use a file in one piece")
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        family = architecture(self.metadata, str(path))
        source = Source(
            metadata=self.metadata,
            shapes={name: tuple(int(n) for n in reversed(t.shape)) for name, t in self._tensors.items()},
            vector=self._vector,
        )
        self.config: dict[str, Any] = family.config(source)
        self._places: dict[str, Place] = family.places(source)

    @property
    def chat_template(self) -> str | None:
        """The template that turns messages into a prompt, or None."""
        found = self.metadata.get("tokenizer.chat_template")
        return found if isinstance(found, str) else None

    def names(self) -> list[str]:
        """The tensors, by the names that they have in the hub's files."""
        return list(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._place(name).shape

    def type(self, name: str) -> str:
        """How a tensor is stored: F32, F16, BF16, Q8_0, Q4_K, ..."""
        return self._tensors[self._place(name).source].tensor_type.name

    def tensor(self, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor, dequantised, in the hub's layout."""
        place = self._place(name)
        stored, kind = self._rows(place), self._tensors[place.source].tensor_type
        count, width = stored.shape[0], place.width
        into = None if place.rows is None else torch.from_numpy(np.argsort(place.rows))
        out = torch.empty((width, count) if place.turned else (count, width), dtype=dtype)
        step = max(1, _PIECE // max(1, width))
        for start in range(0, count, step):
            piece = torch.from_numpy(_dequantised(stored[start : start + step], kind, self.path, width) - place.offset)
            if place.turned:
                out[:, start : start + step] = piece.T
            elif into is None:
                out[start : start + step] = piece
            else:
                out[into[start : start + step]] = piece.to(dtype)
        return out.view(place.shape)

    def packed(self, name: str) -> tuple[Literal["int8", "int4"], Tensor, Tensor] | None:
        """A matrix as it is stored, without loss, or None where it is of another type than Q8_0 and Q4_0.

        Rows are outputs here whatever the family. ("int8", q int8 [out, in], scale float16 [out, in/32]), or ("int4",
        q uint8 [out, in/2], scale): element 2j in the low half of a byte, 2j+1 in the high, value (half - 8) * scale.
        """
        place = self._place(name)
        kind = self._tensors[place.source].tensor_type.name
        if kind not in ("Q8_0", "Q4_0") or len(place.shape) != 2 or place.offset:
            return None
        stored = np.asarray(self._rows(place))
        stored = stored if place.rows is None else stored[place.rows]
        count, groups = stored.shape[0], place.width // GROUP
        blocks = stored.reshape(count, groups, -1)  # two bytes of scale, then the numbers
        scale = torch.from_numpy(blocks[..., :2].copy().view(np.float16).reshape(count, groups))
        numbers = blocks[..., 2:]
        if kind == "Q8_0":
            return "int8", torch.from_numpy(numbers.copy().view(np.int8).reshape(count, -1)), scale
        halves = np.concatenate([numbers & 15, numbers >> 4], axis=-1)  # a block's first 16, then its last 16
        return "int4", torch.from_numpy((halves[..., 0::2] | halves[..., 1::2] << 4).reshape(count, -1)), scale

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, with its special tokens and chat template."""
        from conjure.models.public.gguf_tokenizer import tokenizer

        return tokenizer(self.metadata, str(self.path))

    def _place(self, name: str) -> Place:
        if name not in self._places:
            raise ConjureError(f"{self.path} has no tensor '{name}'", hint=suggest(name, self._places))
        return self._places[name]

    def _rows(self, place: Place) -> np.ndarray:
        """What is stored of a tensor, as rows: of values, or of bytes where it is quantised."""
        data = self._tensors[place.source].data
        data = data if place.expert is None else data[place.expert]
        return data.reshape(-1, 1 if place.width == 1 else data.shape[-1])

    def _vector(self, name: str) -> np.ndarray:
        """A whole small tensor by its name in the file, float32."""
        tensor = self._tensors[name]
        return _dequantised(tensor.data, tensor.tensor_type, self.path, int(tensor.shape[0]))


def _dequantised(stored: np.ndarray, kind: Any, path: Path, width: int) -> np.ndarray:
    """float32 [..., width], in memory of its own."""
    from gguf.quants import dequantize

    if np.issubdtype(stored.dtype, np.floating):
        return np.array(stored, dtype=np.float32)
    try:
        found = dequantize(np.ascontiguousarray(stored), kind)
    except (NotImplementedError, ValueError):
        raise ConjureError(
            f"{path}: tensors of the type {kind.name} cannot be read",
            hint="take a file with F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K or Q6_K",
        ) from None
    return np.array(found, dtype=np.float32).reshape(*stored.shape[:-1], width)


# -- the file itself --------------------------------------------------------------------------------------------------


def _open(path: Path) -> GGUFReader:
    try:
        from gguf import GGUFReader, GGUFValueType
    except ImportError:
        raise ConjureError(f"{path}: reading GGUF files needs the package gguf", hint="pip install gguf") from None

    class Bounded(GGUFReader):
        """The reader of the package, for which every entry of an array is an object of its own, and which believes
        any count. Here an array stays in one piece, and must fit into the file."""

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type != GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            view = memoryview(self.data)  # type: ignore[arg-type]  # arrays are buffers, which their stubs leave out
            item, count = struct.unpack_from("<IQ", view, orig_offs)
            start = end = orig_offs + 12
            if item == GGUFValueType.STRING:
                if count * 8 > len(view) - start:
                    raise ValueError(f"an array of {count} texts")
                for _ in range(count):
                    end += 8 + struct.unpack_from("<Q", view, end)[0]
            elif item in self.gguf_scalar_to_np:
                end += count * np.dtype(self.gguf_scalar_to_np[GGUFValueType(item)]).itemsize
            else:
                raise ValueError(f"an array of type {item}")
            if end > len(view):
                raise ValueError(f"an array of {count} entries")
            return end - orig_offs, [self.data[start:end]], [0], [GGUFValueType.ARRAY, GGUFValueType(item)]

    try:
        with np.errstate(over="raise"):
            reader = Bounded(path)
    except FileNotFoundError:
        raise ConjureError(f"{path}: there is no such file", hint="`conjure models get` fetches models") from None
    except OSError as error:
        raise ConjureError(f"{path}: could not be read: {error.strerror or error}") from None
    except (ValueError, IndexError, KeyError, TypeError, ArithmeticError, struct.error) as error:
        raise ConjureError(f"{path} is no whole GGUF file: {error}"[:300], hint=_BROKEN) from None
    if reader.byte_order != "I":
        raise ConjureError(f"{path}: its numbers are stored with the large end first", hint="use a usual GGUF file")
    for tensor in reader.tensors:
        _check(path, tensor)
    return reader


def _check(path: Path, tensor: ReaderTensor) -> None:
    if not 1 <= len(tensor.shape) <= 4 or any(int(n) < 1 for n in tensor.shape):
        raise ConjureError(f"{path}: tensor {tensor.name} has the shape {tensor.shape.tolist()}", hint=_BROKEN)


def _metadata(reader: GGUFReader, path: Path) -> dict[str, Any]:
    """All keys with plain values; arrays of numbers as NumPy arrays, arrays of texts as lists."""
    from gguf import GGUFValueType

    found: dict[str, Any] = {}
    try:
        for key, field in reader.fields.items():
            if field.types[0] != GGUFValueType.ARRAY:
                found[key] = field.contents()
            elif field.types[1] == GGUFValueType.STRING:
                found[key] = _texts(field.parts[field.data[0]])
            else:
                found[key] = field.parts[field.data[0]].view(reader.gguf_scalar_to_np[field.types[1]])
    except UnicodeDecodeError as error:
        raise ConjureError(f"{path} is no whole GGUF file: {error}"[:300], hint=_BROKEN) from None
    return found


def _texts(stored: np.ndarray) -> list[str]:
    """Texts, each after its length in 8 bytes. A piece of a vocabulary may be half a character: U+FFFD then."""
    data, at, found = stored.tobytes(), 0, []
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at : at + 8], "little")
        found.append(data[at + 8 : end].decode("utf-8", "replace"))
        at = end
    return found
