"""Optimisers: AdamW, and Muon for the matrices inside the blocks.

Shape suffixes: K stacked matrices, M rows, N columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def orthogonalize(g_KMN: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: singular values are driven into about [0.7, 1.2].

    Newton-Schulz iteration with the quintic a x + b x^3 + c x^5 (Jordan 2024, "Muon: an optimizer for hidden
    layers in neural networks"), in float32 on the CPU and bfloat16 on a GPU, which the iteration bears.
    """
    a, b, c = NEWTON_SCHULZ
    x_KMN = g_KMN.to(torch.float32 if g_KMN.device.type == "cpu" else torch.bfloat16)
    tall = x_KMN.size(-2) > x_KMN.size(-1)
    if tall:  # the Gram matrix below should be the small one
        x_KMN = x_KMN.mT
    x_KMN = x_KMN / (x_KMN.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram_KMM = torch.bmm(x_KMN, x_KMN.mT)
        polynomial_KMM = torch.baddbmm(gram_KMM, gram_KMM, gram_KMM, beta=b, alpha=c)
        x_KMN = torch.baddbmm(x_KMN, polynomial_KMM, x_KMN, beta=a)
    return (x_KMN.mT if tall else x_KMN).to(g_KMN.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: every direction of a matrix moves by the same amount.

    update = orthogonalize(nesterov momentum) * 0.2 sqrt(max(M, N)), whose root mean square is that of an
    AdamW update, so that rates and weight decay carry over (Moonlight, arXiv 2502.16982, section 2.2):
    weight <- (1 - lr * weight_decay) * weight - lr * update.
    Convolution kernels count as matrices [out, in * kernel]. Matrices of one shape share one batched product.
    A sharded matrix (FSDP2) is gathered, orthogonalised whole on every rank, and cut again.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            updates = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    momentum = self.state[parameter]["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                    updates[parameter] = parameter.grad.lerp(momentum, group["momentum"])
            for parameter, update in orthogonal_updates(updates).items():
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])


def orthogonal_updates(updates: Mapping[nn.Parameter, Tensor]) -> dict[nn.Parameter, Tensor]:
    """Orthogonalise many matrices, those of one shape together, and scale them to AdamW's size."""
    whole = {p: u.full_tensor() if isinstance(u, DTensor) else u for p, u in updates.items()}
    stacks: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
    for parameter, update in whole.items():
        stacks[update.flatten(1).shape].append(parameter)
    done: dict[nn.Parameter, Tensor] = {}
    for shape, parameters in stacks.items():
        stack_KMN = orthogonalize(torch.stack([whole[p].flatten(1) for p in parameters]))
        stack_KMN *= 0.2 * max(shape) ** 0.5
        for parameter, matrix in zip(parameters, stack_KMN.unbind(), strict=True):
            matrix = matrix.view(whole[parameter].shape)
            if isinstance(parameter, DTensor):  # every rank computed the whole: each keeps its own part
                matrix = distribute_tensor(matrix, parameter.device_mesh, parameter.placements, src_data_rank=None)
            done[parameter] = matrix
    return done


def split_parameters(network: nn.Module) -> tuple[list[str], list[str]]:
    """Names of the trained parameters for Muon, and of those for Adam.

    Muon takes matrices and convolution kernels inside blocks: below an nn.ModuleList or nn.Sequential.
    Adam takes the rest: embeddings, whatever lies outside the blocks (input and output layers), vectors, and
    every parameter with the attribute `adam = True`.
    """
    muon, adam = [], []
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        path = name.split(".")[:-1]
        owners = [network.get_submodule(".".join(path[:depth])) for depth in range(len(path) + 1)]
        inside = any(isinstance(owner, nn.ModuleList | nn.Sequential) for owner in owners)
        kernel = isinstance(owners[-1], CONVOLUTIONS) and parameter.ndim > 2
        matrix = parameter.ndim == 2 or kernel
        opted_out = getattr(parameter, "adam", False) or isinstance(owners[-1], nn.Embedding)
        (muon if inside and matrix and not opted_out else adam).append(name)
    return muon, adam


def build_optimizers(
    parameters: Mapping[str, nn.Parameter],
    split: tuple[list[str], list[str]],
    *,
    optimizer: Literal["muon", "adamw"],
    lr: float,
    adam_lr: float | None,
    betas: tuple[float, float],
    weight_decay: float,
) -> list[torch.optim.Optimizer]:
    """The optimisers of a network; their groups remember the peak rate as `peak`.

    `adam_lr` (default `lr`) is the rate of all that AdamW handles. Vectors do not decay.
    """
    muon, adam = split if optimizer == "muon" else ([], split[0] + split[1])
    built: list[torch.optim.Optimizer] = []
    if muon:
        built.append(Muon([parameters[name] for name in muon], lr, weight_decay=weight_decay))
    matrices = [parameters[name] for name in adam if parameters[name].ndim >= 2]
    vectors = [parameters[name] for name in adam if parameters[name].ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if groups:
        built.append(torch.optim.AdamW(groups, lr=lr if adam_lr is None else adam_lr, betas=betas, fused=True))
    for one in built:
        for group in one.param_groups:
            group["peak"] = group["lr"]
            if isinstance(one, torch.optim.AdamW):
                for parameter in group["params"]:  # made now, so that a checkpoint has somewhere to load into
                    one.state[parameter] = {
                        "step": torch.zeros((), device=parameter.device),
                        "exp_avg": torch.zeros_like(parameter),
                        "exp_avg_sq": torch.zeros_like(parameter),
                    }
    return built
