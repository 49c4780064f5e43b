"""Where things lie: the cache, the history, data sets, starters, recipes and the hub's own cache."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from conjure.core.errors import ConjureError

_PACKAGE = Path(__file__).resolve().parents[1]


def cache_dir() -> Path:
    """`CONJURE_CACHE`, else the platform's cache folder for conjure. It need not exist."""
    if chosen := _setting("CONJURE_CACHE"):
        return chosen
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "conjure"
    if sys.platform == "win32" and (local := _setting("LOCALAPPDATA")):
        return local / "conjure" / "cache"
    return _xdg_cache() / "conjure"


def history_dir() -> Path | None:
    """`CONJURE_HISTORY`, else the platform's folder for what programs keep for a user; None where it says "off"."""
    if os.environ.get("CONJURE_HISTORY", "").strip().lower() in ("off", "0", "no", "false"):
        return None
    if chosen := _setting("CONJURE_HISTORY"):
        return chosen
    if sys.platform == "darwin":
        return _home() / "Library" / "Application Support" / "conjure" / "history"
    if sys.platform == "win32" and (local := _setting("LOCALAPPDATA")):
        return local / "conjure" / "history"
    chosen = _setting("XDG_DATA_HOME")
    return (chosen if chosen and chosen.is_absolute() else _home() / ".local" / "share") / "conjure" / "history"


def data_dir() -> Path | None:
    """`CONJURE_DATA`, a folder of data sets that are already here; None where it is not set."""
    return _setting("CONJURE_DATA")


def starters_dir() -> Path:
    """The models that come with the package."""
    return _PACKAGE / "starters"


def recipes_dir() -> Path:
    """The recipes: inside an installed package, else at the root of the checkout."""
    installed = _PACKAGE / "recipes"
    return installed if installed.is_dir() else _PACKAGE.parent / "recipes"


def hub_cache() -> Path:
    """The Hugging Face hub's own cache, by the hub's own rules: `HF_HUB_CACHE`, else `HF_HOME`/hub, else the
    default."""
    if chosen := _setting("HF_HUB_CACHE") or _setting("HUGGINGFACE_HUB_CACHE"):
        return chosen
    return (_setting("HF_HOME") or _xdg_cache() / "huggingface") / "hub"


def offline() -> bool:
    """Whether `CONJURE_OFFLINE` or `HF_HUB_OFFLINE` says that nothing may be fetched."""
    return any(
        os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on")
        for name in ("CONJURE_OFFLINE", "HF_HUB_OFFLINE")
    )


def _setting(name: str) -> Path | None:
    """The folder an environment variable names; empty counts as unset."""
    value = os.environ.get(name, "").strip()
    if value.startswith("~"):
        return _home() / value[1:].lstrip("/\\") if value[1:2] in ("", "/", "\\") else Path(value)
    return Path(value) if value else None


def _xdg_cache() -> Path:
    chosen = _setting("XDG_CACHE_HOME")
    return chosen if chosen and chosen.is_absolute() else _home() / ".cache"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise ConjureError(
            "expected a home folder, found none", hint="set CONJURE_CACHE and HF_HOME to folders"
        ) from None
