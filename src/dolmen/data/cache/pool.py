"""Pieces of work on a few threads, results in order, few in memory at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")


Out = TypeVar("Out")


def in_pool(work: Callable[[In], Out], pieces: Iterator[In]) -> Iterator[Out]:
    """Work on pieces in threads and yield the results in the order in which the pieces came; few are in flight."""
    num_workers = min(8, os.cpu_count() or 1)
    waiting: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(num_workers, thread_name_prefix="decode") as pool:
        for piece in pieces:
            waiting.append(pool.submit(work, piece))
            if len(waiting) > 2 * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
