"""Generation by denoising: flows (loss and scalings together), samplers, guidance; blind to the medium."""
