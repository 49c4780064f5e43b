"""Public checkpoints: what the files of each family on the hub say, in terms of our own networks."""
