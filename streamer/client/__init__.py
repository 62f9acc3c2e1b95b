"""Receives a daemon's messages in another program.

>>> with Subscriber("tcp://127.0.0.1:5557", ["event/"]) as messages:
...     for message in messages:
...         print(message.label, message.onset_utc)
"""

from streamer.client.asynchronous import AsyncSubscriber
from streamer.client.subscriber import Subscriber

__all__ = ["AsyncSubscriber", "Subscriber"]
