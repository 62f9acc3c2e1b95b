"""The subscriber for asyncio."""

from __future__ import annotations

import asyncio
import math
import time
from types import TracebackType
from typing import Self

import zmq

from streamer.client.subscription import Subscription
from streamer.sinks.wire import Message


class AsyncSubscriber(Subscription):
    """`Subscriber` for asyncio: with `async with`, `async for` and `await receive()`, otherwise the same.

    `on_lost` and `on_gap` are plain functions, not coroutines.

    >>> async with AsyncSubscriber("tcp://127.0.0.1:5557", ["event/"]) as messages:
    ...     async for message in messages:
    ...         print(message)
    """

    async def receive(self, timeout_s: float | None = None) -> Message | None:
        """The next message; None if none arrived within `timeout_s` seconds. Raises as `Subscriber.receive`.

        Cancelling it loses no message.
        """
        deadline_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            message = self._feed.take()
            if message is not None:
                return message
            if not self._feed.read():
                wait_s = min(deadline_s, self._feed.next_s()) - time.monotonic()
                if wait_s > 0:
                    await self._wait(wait_s)
            else:
                await asyncio.sleep(0)  # let other tasks run, also under a flood of messages
            self._report()
            if time.monotonic() >= deadline_s:
                return self._feed.take()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        message = await self.receive(self._timeout_s)
        if message is None:
            raise StopAsyncIteration
        return message

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _wait(self, wait_s: float) -> None:
        """Wait until a socket may have something to read."""
        sockets = self._feed.sockets
        if any(socket.poll(0) for socket in sockets):
            return  # ZMQ_FD is edge-triggered: the edge may have been consumed already
        loop = asyncio.get_running_loop()
        woken = loop.create_future()
        descriptors = [int(socket.get(zmq.FD)) for socket in sockets]
        for descriptor in descriptors:
            loop.add_reader(descriptor, _wake, woken)
        try:
            await asyncio.wait_for(woken, None if wait_s == math.inf else wait_s)
        except TimeoutError:
            pass
        finally:
            for descriptor in descriptors:
                loop.remove_reader(descriptor)


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
