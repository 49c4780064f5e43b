"""Data: sources of examples, by name. Level 3."""
