"""Contrastive search: probable, and unlike what was said before.

Su et al. 2022, arXiv 2202.06417 (eq. 5): of the k best tokens v the one with the highest
(1 - alpha) p(v) - alpha max_j cos(h_v, h_j), h being the last hidden states of the tokens so far.

Legend: K candidates, T tokens so far, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.decoding.reader import Network
from conjure.decoding.rows import Row, check_tops, note, ruled
from conjure.nn.cache import Cache


@runtime_checkable
class ShowsHidden(Protocol):
    """A network that also shows what it computes its logits from."""

    def hidden_of(self, ids_BT: Tensor, *, cache: Cache) -> tuple[Tensor, Tensor]:
        """Hidden states [B, T, D] of these next ids of each row, and logits float32 [B, V] after the last."""
        ...


def contrastive_search(network: Network, row: Row, *, context: int) -> Iterator[tuple[int, str]]:
    """(id, text that has become certain) as they come, until the row has ended.

    The prompt and all that is written must fit into `context`, since every token is compared with all before.
    """
    if not isinstance(network, ShowsHidden):
        raise ConjureError("this network does not show its hidden states, which contrastive search compares")
    decoding, most = row.decoding, len(row.known) + row.decoding.tokens
    if 0 < context < most:
        raise ConjureError(
            f"contrastive search reads at most {context} tokens here, prompt and answer have {most}",
            hint="ask for fewer tokens",
        )
    cache = network.cache(1, most)
    with torch.inference_mode():
        ids_BT = torch.tensor([row.known], device=cache.padding_B.device)
        hidden, logits_1V = network.hidden_of(ids_BT, cache=cache)
    past_TD = F.normalize(hidden[0].float(), dim=-1)
    while True:
        with torch.inference_mode():
            logits_1V = ruled(logits_1V, [row], decoding, row.end)
            check_tops(logits_1V.amax(-1).tolist(), [row])
            chance_V = logits_1V[0].softmax(-1)
            found = chance_V.topk(min(decoding.top_k, int((chance_V > 0).sum())))
            cache.keep([0] * len(found.indices))
            hidden, next_KV = network.hidden_of(found.indices[:, None], cache=cache)
            new_KD = F.normalize(hidden[:, -1].float(), dim=-1)
            likeness_K = (new_KD @ past_TD.T).amax(-1)
            alpha = decoding.contrastive_alpha
            chosen = int(((1 - alpha) * found.values - alpha * likeness_K).argmax())
            token = int(found.indices[chosen])
            note(logits_1V, [token], [row], decoding)
        yield token, row.push(token)
        if row.ended:
            return
        with torch.inference_mode():
            cache.keep([chosen])
            past_TD = torch.cat([past_TD, new_KD[chosen : chosen + 1]])
            logits_1V = next_KV[chosen : chosen + 1]
