"""Training: one loop for every network. It knows `loss`, `preview` and `evaluate`, and no medium."""
