"""Headers that pika cannot read are left out and counted; everything else of the event is there."""

from __future__ import annotations

import pytest
from pika import BasicProperties

from domain_events.transport.tolerance import HEADERS_LEFT_OUT, read_properties

FULL = BasicProperties(
    content_type="application/json",
    content_encoding="utf-8",
    headers={"before": "b", "cut": "here", "after": 7},
    delivery_mode=2,
    priority=3,
    correlation_id="c",
    reply_to="r",
    expiration="60000",
    message_id="m",
    timestamp=5,
    type="t",
    user_id="u",
    app_id="a",
    cluster_id="i",
)
CUT = b"\x03cutS\x00\x00\x00\x04here"


def with_header(entry: bytes, properties: BasicProperties = FULL) -> bytes:
    """The bytes of `properties`, with `entry` in the place of the header "cut"."""
    encoded = b"".join(properties.encode())
    begin = encoded.index(b"\x06before") - 4
    size = int.from_bytes(encoded[begin : begin + 4]) - len(CUT) + len(entry)
    assert encoded.count(CUT) == 1
    return encoded[:begin] + size.to_bytes(4) + encoded[begin + 4 :].replace(CUT, entry)


FAR = (2**63).to_bytes(8)
UNREADABLE = {
    "time": b"\x01xT" + FAR,
    "double NaN": b"\x01xd" + bytes.fromhex("7ff8000000000000"),
    "double infinity": b"\x01xd" + bytes.fromhex("fff0000000000000"),
    "float infinity": b"\x01xf" + bytes.fromhex("7f800000"),
    "in a table": b"\x01xF" + (11).to_bytes(4) + b"\x01yT" + FAR,
    "in an array": b"\x01xA" + (9).to_bytes(4) + b"T" + FAR,
    "unknown kind in an array": b"\x01xA" + (3).to_bytes(4) + b"?ab",
}


@pytest.mark.parametrize("entry", UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_header_is_left_out_and_the_others_are_kept(entry: bytes) -> None:
    encoded = with_header(entry)
    with pytest.raises(Exception):  # noqa: B017 - which one is pika's affair
        BasicProperties().decode(encoded)
    properties = read_properties(encoded)
    assert properties.headers == {"before": "b", "after": 7, HEADERS_LEFT_OUT: 1}


def test_what_follows_a_value_of_unknown_length_is_left_out_with_it() -> None:
    properties = read_properties(with_header(b"\x01x?abc"))
    assert properties.headers == {"before": "b", HEADERS_LEFT_OUT: 1}


@pytest.mark.parametrize("entry", [*UNREADABLE.values(), b"\x01x?abc"])
def test_all_other_properties_are_read(entry: bytes) -> None:
    properties = read_properties(with_header(entry))
    properties.headers = FULL.headers
    assert properties == FULL


def test_properties_before_and_after_the_headers_may_be_missing() -> None:
    few = BasicProperties(headers=FULL.headers, message_id="m")
    properties = read_properties(with_header(UNREADABLE["time"], few))
    assert (properties.content_type, properties.message_id, properties.app_id) == (None, "m", None)
    assert properties.headers == {"before": "b", "after": 7, HEADERS_LEFT_OUT: 1}
