"""Files read some at a time and mapped on a few threads: results in order, few in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from dolmen.types import UserError

In = TypeVar("In")
Out = TypeVar("Out")
Key = TypeVar("Key")
Content = TypeVar("Content")


def in_pool(function: Callable[[In], Out], pieces: Iterator[In]) -> Iterator[Out]:
    """Map pieces in threads and yield the results in the order in which the pieces came; few are in flight."""
    num_workers = min(8, os.cpu_count() or 1)
    pending: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(num_workers, thread_name_prefix="decode") as pool:
        for piece in pieces:
            pending.append(pool.submit(function, piece))
            if len(pending) > 2 * num_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def in_chunks(
    files: Iterable[tuple[Key, Content]], source: str, max_files: int, max_bytes: int
) -> Iterator[list[tuple[Key, Content]]]:
    """Some files at a time as they are read: enough to hide the cost of handing them to a thread, few enough to hold.

    Args:
        files: (key, content or the error in place of it).
        source: what they are read from, for messages.
        max_files: of a chunk.
        max_bytes: from which on a chunk is full.

    Raises:
        UserError: the source stopped giving files (an archive that is cut off, a disk that was unplugged).
    """
    chunk: list[tuple[Key, Content]] = []
    num_bytes = 0
    iterator = iter(files)
    while True:
        try:
            key, content = next(iterator)
        except StopIteration:
            break
        except OSError as error:
            raise UserError(
                f"{source} could not be read to its end ({error.strerror or error}):"
                " check that it is complete and try again."
            ) from error
        chunk.append((key, content))
        num_bytes += len(content) if isinstance(content, bytes) else getattr(content, "nbytes", 0)
        if len(chunk) >= max_files or num_bytes >= max_bytes:
            yield chunk
            chunk, num_bytes = [], 0
    if chunk:
        yield chunk
