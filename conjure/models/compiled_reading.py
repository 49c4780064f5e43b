"""An encoder-decoder whose decoder runs in compiled code: `Writer(pair)`, and a reading of it for each source.

Keys and values of a source are computed by PyTorch, once, and laid as the steps read them.

Legend: B rows, N sources, M tokens of a source, T tokens, D width, L layers, H heads, C head width, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from conjure.models.compiled import Compiled, CompiledCache, Memory, Weights
from conjure.models.encoder_decoder import EncoderDecoder
from conjure.models.transformer import Block, Transformer
from conjure.nn.native.build import native
from conjure.nn.native.pack import LANES
from conjure.nn.quantised import QuantisedLinear


class Writer:
    """The decoder of a pair, which stays as it is: this holds its matrices a second time, packed."""

    def __init__(self, pair: EncoderDecoder, weights: Weights | None = None) -> None:
        """`weights` is the type of matrices that are not quantised; null is that of the pair. Raises `ConjureError`
        where `supports` gives a reason."""
        decoder = pair.decoder
        weights = weights or _weights(decoder)
        blocks = [block for block in decoder.blocks if isinstance(block, Block) and block.cross is not None]
        self._reads = [block.cross for block in blocks]
        self.network, self.config = Compiled(_shell(decoder), weights), decoder.config

    @staticmethod
    def supports(pair: EncoderDecoder) -> str:
        """Why the decoder of this pair cannot run in compiled code here; empty where it can."""
        held = (*pair.decoder.parameters(), *pair.decoder.buffers())
        if any(not tensor.is_cpu for tensor in held):
            return "it is written for the CPU"
        return Compiled.supports(pair.decoder.config)

    @torch.inference_mode()
    def memory(self, memory_NMD: Tensor, lengths: Sequence[int] | None = None) -> Memory:
        """Keys and values of sources, of which the first `lengths[n]` tokens are read (all, unless given)."""
        library = native().library
        assert library is not None
        N, M, _ = memory_NMD.shape
        H, C = self.config.heads, self.config.width
        slots, half = -(-M // LANES) * LANES, self.network.half
        dtype = torch.float16 if half else torch.float32
        keys = torch.empty(len(self._reads), N, H, slots // LANES, C, LANES, dtype=dtype)
        values = torch.empty(len(self._reads), N, H, slots, -(-C // LANES) * LANES, dtype=dtype)
        if M % LANES or C % LANES:  # what is not written is multiplied by nothing, and must be a number
            keys[:, :, :, -1], values[:, :, :, M:] = 0, 0
            values[..., C:] = 0
        for layer, cross in enumerate(self._reads):
            assert cross is not None
            both = cross.kv(memory_NMD).float().contiguous()
            library.conjure_remember(
                both.data_ptr(), keys[layer].data_ptr(), values[layer].data_ptr(), N, M, slots, H, C, half,
                torch.get_num_threads(),
            )  # fmt: skip
        return Memory(keys, values, torch.arange(N), torch.tensor(list(lengths or [M] * N)))

    def __call__(self, memory_NMD: Tensor, lengths: Sequence[int] | None = None) -> CompiledReading:
        """The decoder with its sources read: what can be decoded."""
        return CompiledReading(self.network, self.memory(memory_NMD, lengths))


class CompiledReading:
    """As `encoder_decoder.Reading`: a network that decodes, with the source in its cache."""

    def __init__(self, network: Compiled, memory: Memory) -> None:
        self.network, self.memory, self.config = network, memory, network.config

    def cache(self, batch: int, capacity: int, padding: Sequence[int] | None = None) -> CompiledCache:
        """Row b reads source b; a single source is read by all rows."""
        cache, own = self.network.cache(batch, capacity, padding), self.memory
        places_B = torch.arange(batch) if len(own.places_B) == batch else torch.zeros(batch, dtype=torch.long)
        cache.memory = Memory(own.keys, own.values, own.places_B[places_B], own.lengths_B[places_B])
        return cache

    def __call__(self, ids_BT: Tensor, *, cache: CompiledCache, last_only: bool) -> Tensor:
        return self.network(ids_BT, cache=cache, last_only=last_only)


def _weights(decoder: Transformer) -> Weights:
    for module in decoder.modules():
        if isinstance(module, QuantisedLinear):
            return module.weights
    return "bf16" if decoder.compute_dtype == torch.bfloat16 else "fp32"


def _shell(decoder: Transformer) -> Transformer:
    """Another decoder of the same tensors: `Compiled` empties the layers it is given."""
    same = {id(tensor): tensor for tensor in (*decoder.parameters(), *decoder.buffers())}
    return copy.deepcopy(decoder, same)
