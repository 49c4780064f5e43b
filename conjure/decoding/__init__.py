"""Generation token by token: filters, draws, streams; the autoregressive twin of `diffusion`."""
