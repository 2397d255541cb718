"""The delivery tags of a channel that the broker waits for. Pure."""

from __future__ import annotations


class Unsettled:
    """Turns "these are done" into as few acks as possible, and never acks what is not done.

    An ack with `multiple` settles every lower tag of the channel too, so it may only go as far as the first tag
    that is still open; what is done behind such a gap (a retry copy waits for its confirm) is acked one by one.
    """

    def __init__(self) -> None:
        self._open: dict[int, bool] = {}  # tag -> done; in the order of delivery

    def __len__(self) -> int:
        return len(self._open)

    def add(self, tag: int) -> None:
        self._open[tag] = False

    def done(self, tag: int) -> None:
        self._open[tag] = True

    def remove(self, tag: int) -> None:
        """The tag was settled in another way."""
        del self._open[tag]

    def take_acks(self) -> list[tuple[int, bool]]:
        """The acks to send now, as (tag, multiple)."""
        acks: list[tuple[int, bool]] = []
        up_to: list[int] = []
        gap = False
        for tag, is_done in self._open.items():
            if not is_done:
                gap = True
            elif gap:
                acks.append((tag, False))
            else:
                up_to.append(tag)
        if up_to:
            acks.insert(0, (up_to[-1], len(up_to) > 1))
        for tag in up_to:
            del self._open[tag]
        for tag, multiple in acks:
            if not multiple:
                self._open.pop(tag, None)
        return acks
