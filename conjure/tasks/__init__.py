"""Level 4: one file per edge from media to media, and the literal table of them all."""
