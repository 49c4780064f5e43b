"""What every program has to do: the same tensors, from the same seed.

Legend: B batch, h and w sides of the latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Task = Literal["unet", "decode", "dit", "loop"]
TOKENS, CONTEXT, GUIDANCE = 77, 768, 7.5
"""Of a prompt, and how strongly it pulls."""


@dataclass(frozen=True)
class Work:
    folder: str
    """Holds unet, vae, transformer and scheduler as diffusers saves them."""
    task: Task
    side: int
    """Of the latents."""
    threads: int = 2
    steps: int = 20
    """Of a loop."""

    @property
    def part(self) -> str:
        return {"unet": "unet", "loop": "unet", "decode": "vae", "dit": "transformer"}[self.task]

    def latents(self):  # type: ignore[no-untyped-def]  (torch is imported when it is needed)
        """float32 `[B, 4, h, w]`: two for one evaluation with guidance, one to be decoded or to begin a loop."""
        import torch

        batch = 2 if self.task in ("unet", "dit") else 1
        return torch.randn(batch, 4, self.side, self.side, generator=torch.Generator().manual_seed(1))

    def context(self):  # type: ignore[no-untyped-def]
        """float32 `[2, TOKENS, CONTEXT]`: of no prompt and of one."""
        import torch

        return torch.randn(2, TOKENS, CONTEXT, generator=torch.Generator().manual_seed(2))
