"""GPTQ: matrices rounded column by column, each error made good by the columns that are still to come.

Frantar et al. 2022, arXiv 2210.17323. What counts is not how far a matrix moves but how far its products with real
inputs move: |X (W - Q)^T|^2, whose second derivative is H = X^T X for every row of W. Where inputs are correlated, the
columns that are not rounded yet can take over part of an error; where they are not, this is rounding to nearest.

Legend: O outputs, I inputs, G groups of inputs, N rows of inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.nn import quantised
from conjure.nn.rounding import GROUP, Weights, best_scale, checked_group, nearest, stored

_BLOCK = 128
"""Columns whose corrections to later columns are gathered and applied at once."""


@torch.no_grad()
def calibrate(
    network: nn.Module,
    weights: Weights,
    batches: Sequence[Tensor],
    *,
    skip: tuple[str, ...] = (),
    group: int = GROUP,
    run: Callable[[nn.Module, Tensor], object] | None = None,
    damping: float = 0.01,
    ordered: bool = True,
) -> nn.Module:
    """Every linear layer that `run(network, batch)` (default `network(batch)`) comes by, rounded by GPTQ, in place.

    All batches go through the network together, once: as they reach a layer it is rounded, and they go on through the
    rounded one, so later layers see and correct what earlier ones did wrong. Batches are joined along their first axis
    and need one shape behind it. What they do not reach stays as it is.
    """
    if not batches or not all(batch.shape[1:] == batches[0].shape[1:] for batch in batches) or not len(batches[0]):
        raise ConjureError("calibration: expected batches of equal length, got none or different ones")
    found = {id(network.get_submodule(names[0])): names for names in quantised.places(network, skip)}

    def reached(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        assert isinstance(module, nn.Linear)
        x_NI = args[0].reshape(-1, module.in_features)
        q, scale = gptq(module.weight, hessian(x_NI), weights, group, damping=damping, ordered=ordered)
        made = quantised.with_matrix(module, weights, q, scale)
        quantised.replace(network, found[id(module)], made)
        return made(args[0])

    layers = (module for module in network.modules() if isinstance(module, nn.Linear) and id(module) in found)
    hooks = [module.register_forward_hook(reached) for module in layers]
    try:
        joined = torch.cat(list(batches))
        network(joined) if run is None else run(network, joined)
    finally:
        for hook in hooks:
            hook.remove()
    return network


def hessian(x_NI: Tensor) -> Tensor:
    """X^T X / N, float64 `[I, I]`."""
    total_II = torch.zeros(x_NI.shape[1], x_NI.shape[1], dtype=torch.float64, device=x_NI.device)
    for part_NI in x_NI.split(8192):
        total_II += part_NI.float().T @ part_NI.float()
    return total_II / len(x_NI)


@torch.no_grad()
def gptq(
    weight_OI: Tensor,
    hessian_II: Tensor,
    weights: Weights,
    group: int = GROUP,
    *,
    damping: float = 0.01,
    ordered: bool = False,
) -> tuple[Tensor, Tensor]:
    """(q, scale) in the stored form. `damping` is added to the diagonal of H, in parts of its mean. Inputs that were
    always 0 are rounded to nearest. `ordered` begins with the inputs that matter most, while there are many left to
    correct them; scales are then those of the matrix as it was, else each is chosen when its group is reached.

    The factor of H^-1 holds, in row i, how the columns behind i answer an error in column i (section 3.3).
    """
    group = checked_group(weight_OI.shape[1], weights, group)
    w_OI, answer_II, order_I = _factored(weight_OI, hessian_II, damping, ordered)
    fixed = ordered or group == weight_OI.shape[1]
    scale_OG = best_scale(weight_OI.detach().float().unflatten(1, (-1, group)), weights)
    integers_OI = torch.zeros_like(w_OI)
    for start in range(0, w_OI.shape[1], _BLOCK):
        end = min(start + _BLOCK, w_OI.shape[1])
        block_Ob = w_OI[:, start:end]
        errors_Ob = torch.zeros_like(block_Ob)
        for i in range(end - start):
            column = start + i
            at = int(order_I[column]) // group
            if not fixed and column % group == 0:
                # A group that reaches behind this block is seen without the block's own corrections there.
                scale_OG[:, at] = best_scale(w_OI[:, column : column + group].unsqueeze(1), weights)[:, 0]
            scale_O = scale_OG[:, at]
            rounded_O = nearest(block_Ob[:, i], scale_O, weights)
            integers_OI[:, column] = rounded_O
            error_O = (block_Ob[:, i] - rounded_O * scale_O) / answer_II[column, column]
            block_Ob[:, i:] -= torch.outer(error_O, answer_II[column, column:end])
            errors_Ob[:, i] = error_O
        w_OI[:, end:] -= errors_Ob @ answer_II[start:end, end:]
    return stored(integers_OI[:, order_I.argsort()], weights), scale_OG.half()


def _factored(weight_OI: Tensor, hessian_II: Tensor, damping: float, ordered: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(weights float32 in the order of rounding, upper Cholesky factor of H^-1 in that order, the order)."""
    h_II = hessian_II.double().clone()
    diagonal_I = h_II.diagonal()
    if not bool(torch.isfinite(h_II).all()):
        raise ConjureError("calibration: activations are no finite numbers", hint="are the weights whole?")
    order_I = diagonal_I.argsort(descending=True, stable=True) if ordered else torch.arange(len(h_II))
    order_I = order_I.to(h_II.device)
    diagonal_I[diagonal_I == 0] = max(float(diagonal_I.mean()), 1e-12)
    step = damping * float(diagonal_I.mean())
    h_II = h_II[order_I][:, order_I]
    for _ in range(8):
        h_II.diagonal().add_(step)
        factor_II, failed = torch.linalg.cholesky_ex(h_II)
        if not int(failed):
            inverse_II = torch.cholesky_inverse(factor_II)
            answer_II, failed = torch.linalg.cholesky_ex(inverse_II, upper=True)
            if not int(failed):
                return weight_OI.detach().float()[:, order_I].clone(), answer_II.float(), order_I
        step = max(10 * step, 1e-12)
    raise ConjureError("calibration: the inputs of a layer are too much alike", hint="use more and different texts")
