"""Work that runs one piece at a time, in a line of bounded length, and is kept for a while."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sparseattn.errors import AppError


class Kept:
    """The last results that together take no more than so many bytes."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any], size: Callable[[Any], int]) -> Any:
        """What is kept under a key, made where it is not; `size` says how many bytes it takes."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        value = make()
        self._kept[key] = value, size(value)
        self._bytes += self._kept[key][1]
        while self._bytes > self._most and len(self._kept) > 1:
            _, (_, freed) = self._kept.popitem(last=False)
            self._bytes -= freed
        return value


class Jobs:
    """One thread, since models and parsers are not made for several, and who waits for it.

    The same job asked for twice at the same time is done once.
    """

    def __init__(self, most: int = 64) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sparseattn")
        self._waiting: dict[Hashable, asyncio.Future[Any]] = {}
        self._most = most

    async def do(self, key: Hashable, work: Callable[[], Any]) -> Any:
        """The result of a job, when its turn has come.

        Raises:
            AppError: Too many wait already.
        """
        if key not in self._waiting:
            if len(self._waiting) >= self._most:
                raise AppError(f"{self._most} requests are waiting already; try again in a moment")
            job = asyncio.get_running_loop().run_in_executor(self._thread, work)
            self._waiting[key] = job
            job.add_done_callback(lambda _: self._waiting.pop(key, None))
        # A browser that goes away must not end the job for others who wait for it.
        return await asyncio.shield(self._waiting[key])

    def close(self) -> None:
        """Ends the thread when its present job is done."""
        self._thread.shutdown(wait=False, cancel_futures=True)
