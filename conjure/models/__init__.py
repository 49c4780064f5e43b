"""One file per network, its config beside it."""
