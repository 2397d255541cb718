"""The delivery tags of a channel that the broker waits for. Pure."""

from __future__ import annotations

from bisect import bisect_left


class Unsettled:
    """Turns "these are done" into as few acks as possible, and never acks what is not done.

    An ack with `multiple` settles every lower tag of the channel too, so it may only go as far as the first tag
    that is still open; what is done behind such a gap (a retry copy waits for its confirm, a slower thread still
    handles its event) is acked one by one.
    """

    def __init__(self) -> None:
        self._open: dict[int, None] = {}  # in the order of delivery, which is that of the tags
        self._done: list[int] = []

    def __len__(self) -> int:
        return len(self._open) + len(self._done)

    def __contains__(self, tag: int) -> bool:
        return tag in self._open or tag in self._done

    def add(self, tag: int) -> None:
        self._open[tag] = None

    def done(self, tag: int) -> None:
        del self._open[tag]
        self._done.append(tag)

    def remove(self, tag: int) -> None:
        """The tag was settled in another way."""
        del self._open[tag]

    def take_acks(self) -> list[tuple[int, bool]]:
        """The acks to send now, as (tag, multiple)."""
        done, self._done = sorted(self._done), []
        first_open = next(iter(self._open), None)
        up_to = len(done) if first_open is None else bisect_left(done, first_open)
        acks = [(done[up_to - 1], up_to > 1)] if up_to else []
        acks += [(tag, False) for tag in done[up_to:]]
        return acks
