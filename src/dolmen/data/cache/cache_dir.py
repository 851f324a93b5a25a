"""The folder for what can be computed or downloaded again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return $DOLMEN_CACHE, else $XDG_CACHE_HOME/dolmen, else ~/.cache/dolmen; it may not exist yet."""
    own = os.environ.get("DOLMEN_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "dolmen"
