"""Level 0: errors, configuration, seeds, files, paths, provenance. Never imports torch at import time."""
