"""A new bundle in the old one's place is taken over while requests go on."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from dolmen.runtime.server.hosting import ModelSlot
from dolmen.runtime.server.logs import fail, say
from dolmen.types import MachineError, UserError

Signature = tuple[tuple[str, int, int, int], ...]


def signature(path: Path) -> Signature:
    """What changes when a file, or one of the files in a folder, is written anew; () where nothing is."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        stats = [(f.name, f.stat()) for f in files if not f.name.startswith(".") and not f.is_dir()]
    except OSError:
        return ()
    return tuple((name, s.st_mtime_ns, s.st_size, s.st_ino) for name, s in stats)


class Watcher:
    """Checks the paths of all models, and loads what has changed.

    Args:
        hosts: the models.
        seconds: between two checks.
    """

    def __init__(self, hosts: Sequence[ModelSlot], seconds: float = 1.0) -> None:
        self.hosts, self.seconds = hosts, seconds
        self._loaded = {h.name: signature(h.path) for h in hosts}
        self._last = dict(self._loaded)

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(self.seconds)
            for host in self.hosts:
                await self.check(host)

    async def check(self, host: ModelSlot) -> bool:
        """Load a model again if its files have changed, and not since the last check; whether it was."""
        now = await asyncio.to_thread(signature, host.path)
        before, self._last[host.name] = self._last[host.name], now
        if now == self._loaded[host.name] or now != before or not now:  # who writes in place is not done yet
            return False
        self._loaded[host.name] = now  # also where it is broken: it is tried again when it changes again
        outcome = host.metrics.reloads.labels
        try:
            model = await asyncio.to_thread(host.load_again)
        except (UserError, MachineError, OSError) as error:
            outcome(host.name, "kept the old one").inc()
            say("reload failed, the old model stays", level=logging.ERROR, model=host.name, reason=str(error))
        except Exception as error:
            outcome(host.name, "kept the old one").inc()
            fail("reload failed, the old model stays", error, model=host.name)
        else:
            host.replace(model)
            outcome(host.name, "replaced").inc()
            say("reloaded", model=host.name, version=host.version, file=os.fspath(host.path))
            return True
        return False
