"""What the broker confirms: cut out of the byte stream as pika would have read it, and found in the window."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, frame, spec

from domain_events.transport.confirms import Confirms
from domain_events.transport.deliveries import Deliveries
from domain_events.transport.direct import DirectConnection
from domain_events.transport.publication import Publication
from domain_events.transport.window import MOST_BYTES_IN_FLIGHT, MOST_IN_FLIGHT, Window


class Link(DirectConnection):
    """A connection without a network, that writes down what a publisher on channel 1 is told, and all other frames."""

    def __init__(self, cuts: bool) -> None:
        self.deliveries = Deliveries()
        self.confirms = Confirms()
        self._frame_buffer = b""
        self.bytes_received = 0
        self.told: list[object] = []
        self.cut = 0
        if cuts:
            self.confirms.expect(1, self.on_cut)

    def on_cut(self, tag: int, multiple: bool) -> None:
        self.cut += 1
        self.told.append((tag, multiple))

    def _process_frame(self, value: Any) -> None:
        method = getattr(value, "method", None)
        if isinstance(method, spec.Basic.Ack) and value.channel_number == 1:
            self.told.append((method.delivery_tag, method.multiple))
        else:
            self.told.append((value.NAME, value.channel_number, vars(method) if method else None))


def ack(tag: int, multiple: bool = False, channel: int = 1) -> bytes:
    return frame.Method(channel, spec.Basic.Ack(tag, multiple)).marshal()


def read(stream: bytes, pieces: list[int]) -> Link:
    """With and without the short way: the same must come out."""
    links = [Link(cuts=True), Link(cuts=False)]
    for link in links:
        sizes = iter(pieces)
        left = stream
        while left:
            size = next(sizes, len(left))
            link._on_data_available(left[:size])
            left = left[size:]
    with_, without = links
    assert with_.told == without.told
    assert with_.bytes_received == without.bytes_received
    assert with_._frame_buffer == without._frame_buffer
    return with_


frames = st.one_of(
    st.builds(ack, st.integers(0, 2**64 - 1), st.booleans(), st.sampled_from([1, 1, 1, 2])),
    st.builds(
        lambda tag, all_: frame.Method(1, spec.Basic.Nack(tag, all_)).marshal(), st.integers(1, 9), st.booleans()
    ),
    st.just(frame.Heartbeat().marshal()),
    st.just(frame.Method(1, spec.Basic.Return(312, "NO_ROUTE", "x", "a.b")).marshal()),
    st.just(frame.Method(1, spec.Channel.FlowOk(True)).marshal()),
    st.just(frame.Method(0, spec.Connection.Blocked("low on memory")).marshal()),
)


@given(st.lists(frames, max_size=20).map(b"".join), st.lists(st.integers(1, 60), max_size=20))
def test_what_is_cut_is_what_pika_would_have_told(stream: bytes, pieces: list[int]) -> None:
    read(stream, pieces)


def test_confirms_do_not_go_through_pika() -> None:
    link = read(ack(1) + ack(5, multiple=True) + ack(6), [])
    assert link.told == [(1, False), (5, True), (6, False)]
    assert link.cut == 3


@pytest.mark.parametrize("size", [1, 7, 8, 20, 29])
def test_a_confirm_may_come_in_pieces(size: int) -> None:
    link = read(ack(1) + ack(2), [size] * 42)
    assert (link.told, link.cut) == ([(1, False), (2, False)], 2)


def test_confirms_of_an_earlier_channel_are_not_taken_for_those_of_the_present_one() -> None:
    link = Link(cuts=True)
    link.confirms.expect(2, link.on_cut)
    link._on_data_available(ack(1, channel=1) + ack(2, channel=2))
    assert (link.told, link.cut) == ([(1, False), (2, False)], 1)


def test_what_is_no_frame_is_left_to_pika() -> None:
    broken = ack(1)[:-1] + b"\x00"
    confirms = Confirms()
    confirms.expect(1, lambda tag, multiple: pytest.fail("told of rubbish"))
    assert confirms.cut(broken) == (0, True)


# The window


def publication(size: int = 1) -> Publication:
    return Publication(
        exchange="x",
        routing_key="k",
        properties=BasicProperties(),
        body=bytes(size),
        mandatory=False,
        done=lambda error: None,
    )


def full(n: int) -> tuple[Window, list[Publication]]:
    window = Window()
    publications = [publication() for _ in range(n)]
    for each in publications:
        window.add(each)
    return window, publications


def test_one_confirm_is_for_one_or_for_all_up_to_it() -> None:
    window, given = full(6)
    assert window.take(2, multiple=False) == [given[1]]
    assert window.take(4, multiple=True) == [given[0], given[2], given[3]]
    assert list(window) == given[4:]


def test_tag_0_is_all() -> None:
    window, given = full(3)
    assert window.take(0, multiple=True) == given
    assert not window


def test_what_was_confirmed_or_never_given_is_nobody() -> None:
    window, given = full(2)
    window.take(1, multiple=False)
    assert window.take(1, multiple=False) == []
    assert window.take(1, multiple=True) == []
    assert window.take(77, multiple=False) == []
    assert list(window) == given[1:]


def test_the_window_bounds_number_and_bytes() -> None:
    window, _ = full(MOST_IN_FLIGHT - 1)
    assert window.has_room_for(publication())
    window.add(publication())
    assert not window.has_room_for(publication())
    window.take(1, multiple=False)
    assert window.has_room_for(publication())
    window.clear()
    window.add(publication(MOST_BYTES_IN_FLIGHT - 1))
    assert window.has_room_for(publication(1))
    assert not window.has_room_for(publication(2))
    window.clear()
    assert window.has_room_for(publication(2 * MOST_BYTES_IN_FLIGHT))


def test_a_new_channel_counts_from_1_and_an_old_one_goes_on() -> None:
    window, given = full(2)
    assert window.clear() == given
    third = publication()
    window.add(third)
    assert window.take(1, multiple=False) == []
    assert window.take(3, multiple=False) == [third]
    window.begin()
    window.add(third)
    assert window.take(1, multiple=False) == [third]
