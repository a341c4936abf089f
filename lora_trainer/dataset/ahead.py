"""Work on many pictures, a few of them ahead of who takes the results."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

MOST_THREADS = 4  # each may hold a whole picture

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(work: Callable[[Item], Result], items: Iterable[Item], extra: int = 0) -> Generator[Result, None, None]:
    """The results in the order of the items, made in threads (Pillow decodes outside the interpreter's lock).

    So many results wait as there are threads, and `extra` more. What `work` raises is raised when its turn comes; who
    takes no more results lets the work that has begun end, and no further begin.
    """
    threads = min(MOST_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads + extra:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
