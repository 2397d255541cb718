"""What the broker has been given and has not confirmed."""

from __future__ import annotations

from collections.abc import Iterator

from domain_events.transport.publication import Publication

MOST_IN_FLIGHT = 1000
"""Unconfirmed publications at a time: enough for the broker's group commit, little to send again after a loss."""

MOST_BYTES_IN_FLIGHT = 16 * 1024 * 1024
"""Of their bodies, unless a single one is larger: until the broker reads them they are in memory a second time."""


class Window:
    """Of one channel at a time. Iterates from the oldest on."""

    def __init__(self) -> None:
        self._by_tag: dict[int, Publication] = {}  # oldest first
        self._bytes = 0
        self._oldest = 1  # no tag before it is in flight
        self._next_tag = 1

    def __len__(self) -> int:
        return len(self._by_tag)

    def __iter__(self) -> Iterator[Publication]:
        return iter(self._by_tag.values())

    def has_room_for(self, publication: Publication) -> bool:
        if not self._by_tag:
            return True
        return len(self._by_tag) < MOST_IN_FLIGHT and self._bytes + len(publication.body) <= MOST_BYTES_IN_FLIGHT

    def add(self, publication: Publication) -> None:
        """It is what is published next over this channel."""
        self._by_tag[self._next_tag] = publication
        self._next_tag += 1
        self._bytes += len(publication.body)

    def take(self, tag: int, multiple: bool) -> list[Publication]:
        """Those that the broker means, oldest first; it may mean one twice. `multiple`: all up to `tag`; 0: all."""
        by_tag, end = self._by_tag, self._next_tag
        if not multiple:
            tags = range(tag, tag + 1)
        elif tag and tag < end:
            tags = range(self._oldest, tag + 1)
        else:
            tags = range(self._oldest, end)
        taken = [publication for each in tags if (publication := by_tag.pop(each, None)) is not None]
        for publication in taken:
            self._bytes -= len(publication.body)
        if multiple:
            self._oldest = max(self._oldest, tags.stop)
        # Each is passed once: the broker may confirm one by one, and then all before a tag.
        while self._oldest < end and self._oldest not in by_tag:
            self._oldest += 1
        return taken

    def clear(self) -> list[Publication]:
        """Nothing that is in flight will be confirmed any more. Returns it, oldest first."""
        publications = list(self._by_tag.values())
        self._by_tag.clear()
        self._bytes = 0
        return publications

    def begin(self) -> None:
        """A new channel, on which nothing is in flight: its broker counts from 1."""
        self.clear()
        self._oldest = self._next_tag = 1
