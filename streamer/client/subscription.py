"""What both subscribers are: what they subscribe to, what they missed, and how far they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from streamer.client.feed import Feed, Options, report
from streamer.errors import GapError, HeartbeatLostError
from streamer.sinks.keys import ClientKey


class Subscription:
    """Messages of one or more daemons, in the order of sending.

    ZeroMQ connects and reconnects automatically. The current statuses and open events arrive first, each once; replays
    for other subscribers are skipped. Missed onsets, offsets and statuses are requested from the daemon's store and
    delivered in order, each once, even across restarts of the daemon. `missed` counts the messages that can't be
    recovered: tags, scores and heartbeats, and everything from a daemon without a store.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str],
        topics: str | Sequence[str] = ("",),
        *,
        timeout_s: float | None = None,
        lost_after_s: float | None = None,
        on_lost: Callable[[HeartbeatLostError], None] | None = None,
        queue_messages: int = 10_000,
        key: ClientKey | str | Path | None = None,
        since: int | Mapping[str, int] | None = None,
        catch_up: bool | str = True,
        patience_s: float = 15.0,
        on_gap: Callable[[GapError], None] | None = None,
    ) -> None:
        """Subscribe to the topics that begin with one of `topics` (docs/messages.md); `""` matches all.

        Iteration ends when no message arrives for `timeout_s` seconds; None: it never ends. If a publisher is silent
        for `lost_after_s` seconds (at least twice its heartbeat interval), or no publisher is heard at the start,
        `on_lost` is called once; without `on_lost`, `HeartbeatLostError` is raised. Receiving can continue after it.
        At most `queue_messages` are queued here and some more in the daemon; messages beyond that are missed.
        `key` is a key file from `earwitness keys new`, or its loaded content; a daemon on another machine requires one.

        Args:
            endpoints: where daemons publish.
            topics: prefixes.
            timeout_s: seconds.
            lost_after_s: seconds.
            on_lost: see above.
            queue_messages: see above.
            key: see above.
            since: begin after this `stored_seq` (0: with the oldest stored message), or at a saved `position`.
                None: begin with live messages.
            catch_up: request missed messages. An endpoint (tcp://HOST:PORT): send the requests there, and not to the
                endpoint that the daemon announces.
            patience_s: missed messages are skipped if a running daemon does not deliver them within this time.
            on_gap: called when stored messages are unavailable, or a daemon begins a new store. None: log it.

        Raises:
            UsageError: an endpoint is invalid.
            KeysError: the key file can't be used.

        """
        self._timeout_s = timeout_s
        self._on_lost = on_lost
        self._on_gap = on_gap
        self._feed = Feed(
            Options(
                endpoints=(endpoints,) if isinstance(endpoints, str) else tuple(endpoints),
                topics=(topics,) if isinstance(topics, str) else tuple(topics),
                lost_after_s=lost_after_s,
                queue_messages=queue_messages,
                key=key,
                since=since,
                catch_up=catch_up,
                patience_s=patience_s,
            )
        )

    @property
    def missed(self) -> Mapping[str, int]:
        """Number of messages in the subscribed topics that were sent but never received, by publisher.

        Without a subscription to everything, messages lost before the first one of their topic are not counted.
        """
        return MappingProxyType(self._feed.inbox.missed)

    @property
    def position(self) -> dict[str, int]:
        """By store id, the `stored_seq` up to which everything was received. Save it, and pass it as `since` later.

        Save it after processing each message: then no message is lost if the program is killed.
        """
        return self._feed.inbox.position

    def close(self) -> None:
        """Disconnect. A second call has no effect."""
        self._feed.close()

    def _report(self) -> None:
        """Call the callbacks for the errors that have come, or raise them."""
        while (error := self._feed.next_error()) is not None:
            report(error, self._on_lost, self._on_gap)
