"""What a hostile sender could put into a queue, on any broker: raw bytes for pika to publish."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from pika import BasicProperties

from domain_events import DomainEvent
from tests.tables import Raw, entries, long, number, properties, short


@dataclass(frozen=True, kw_only=True)
class Letter:
    """`reason`: a part of the one that it is dead-lettered with; empty: it is a good event, whose data is `name`."""

    name: str
    routing_key: str | bytes
    body: bytes
    properties: BasicProperties = field(default_factory=BasicProperties)
    reason: str = ""


def good(key: str, name: str, sent: BasicProperties | None = None, routing_key: str | bytes | None = None) -> Letter:
    event = DomainEvent(key, name)
    sent = sent or BasicProperties(delivery_mode=2, message_id=event.uuid_string)
    return Letter(name=name, routing_key=routing_key or key, body=event.encode(), properties=sent)


def with_headers(key: str, name: str, table: bytes) -> Letter:
    return good(key, name, Raw(properties(table)))


def nested(levels: int, kind: str = "F") -> bytes:
    value = long(b"", kind)
    for _ in range(levels):
        value = long(b"\1n" + value if kind == "F" else value, kind)
    return value


FAR = b"T" + b"\xff" * 8
FORGED = [
    "routing-key",
    "reason",
    "error-type",
    "error-message",
    "traceback",
    "receiver",
    "host",
    "pid",
    "dead-at",
    "code-version",
    "retries",
    "first-failed-at",
    "headers-left-out",
]


def good_ones(key: str) -> Iterator[Letter]:
    """Events whose headers and properties are of any kind that a broker takes."""
    yield with_headers(key, "a time beyond the calendar", entries(a=FAR, b=long("b")))
    yield with_headers(
        key, "an infinite number", entries(a=b"d" + struct.pack(">d", float("1e308")), b=b"f" + b"\0" * 4)
    )
    yield with_headers(key, "tables within tables", entries(a=nested(3000), b=long("b")))
    yield with_headers(key, "arrays within arrays", entries(a=nested(3000, "A")))
    yield with_headers(key, "a broken time deep inside", entries(a=long(long(short("t") + FAR, "F"), "A")))
    yield with_headers(key, "a decimal", entries(a=b"D\xff\x7f\xff\xff\xff"))
    yield with_headers(key, "the same header twice", entries(a=b"V") + entries(a=number(1, "t")))
    yield with_headers(key, "names that are no text", short(b"\xff") + b"V" + short("") + b"V" + short("\0\n") + b"V")
    yield with_headers(key, "many headers", b"".join(short(f"{n:x}") + b"V" for n in range(20_000)))
    yield with_headers(key, "a large header", entries(a=long("x" * 100_000)))
    yield with_headers(key, "bytes", entries(a=long(b"\xff\xfe", "x"), b=long(b"\xff\xfe")))
    for name, value in {
        "a number": number(2**62),
        "a negative number": number(-1),
        "true": number(1, "t"),
        "a text": long("-1"),
        "a long text": long("9" * 5000),
        "a line end": long("a\n2026-01-01 CRITICAL"),
        "no text": long(b"\xff\xfe"),
        "an array": long(number(1), "A"),
        "a table": long(entries(a=number(1)), "F"),
        "nothing": b"V",
        "a time": FAR,
        "NaN": long("nan"),
    }.items():
        table = b"".join(short(f"domain-events-{each}") + value for each in FORGED)
        yield with_headers(key, f"forged: {name}", table)
    yield with_headers(
        key, "broker's own", entries(x_death=long("a"), x_delivery_count=number(-1), x_first_death_queue=b"V")
    )
    yield with_headers(key, "CC", entries(CC=long(long("nowhere"), "A"), BCC=long(long("nowhere"), "A")))
    yield good(
        key, "an id that is no text", Raw(struct.pack(">H", BasicProperties.FLAG_MESSAGE_ID) + short(b"\xff" * 255))
    )
    yield good(
        key, "an id of lines", BasicProperties(message_id="a\n\x1b[2J" + "x" * 200, type="t\n", app_id="\0" * 255)
    )
    yield good(
        key, "odd properties", BasicProperties(priority=255, timestamp=2**64 - 1, delivery_mode=1, reply_to="x" * 255)
    )
    yield good(key, "a key that is no text", routing_key=key.encode() + b".\xff\xfe\n\x1b[2J")
    yield good(
        key, "a content encoding that is not true", BasicProperties(content_encoding="gzip", content_type="text/xml")
    )
    body = json.dumps({"specversion": "1.0", "type": key, "id": "1", "source": "/", "data": "a cloud event"}).encode()
    yield Letter(
        name="a cloud event",
        routing_key=key,
        body=body,
        properties=BasicProperties(content_type="Application/CloudEvents+JSON; charset=utf-8"),
    )


def bad_ones(key: str) -> Iterator[Letter]:
    """What is no event."""
    head = f'{{"routing_key":"{key}","data":'.encode()
    bodies: dict[str, tuple[bytes, str]] = {
        "nothing": (b"", "not JSON"),
        "NULs": (b"\0" * 1000, "not JSON"),
        "no UTF-8": (b"\xff\xfe", "not UTF-8"),
        "UTF-16": (head.decode().encode("utf-16"), "not UTF-8"),
        "an array": (b"[]", "an array"),
        "arrays": (head + b"[" * 5_000_000, "nested too deeply"),
        "objects": (head + b'{"a":' * 1_000_000, "nested too deeply"),
        "deep and whole": (head + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        "digits": (head + b"9" * 1_000_000 + b"}", "too many digits"),
        "infinite": (head + b"1e999}", "too large"),
        "a bad key": (b'{"routing_key":"a\\n2026-01-01 CRITICAL","data":1}', "control character"),
        "no data": (f'{{"routing_key":"{key}"}}'.encode(), "no data"),
        "a bad id": (head + b'1,"uuid_string":["\\n"]}', "not a string"),
        "a bad time": (head + b'1,"timestamp":"soon"}', "not a number"),
    }
    for name, (body, reason) in bodies.items():
        yield Letter(name=name, routing_key=key, body=body, reason=reason)
    packed = gzip.compress(b"[" * 20_000_000)
    yield Letter(
        name="a zip bomb",
        routing_key=key,
        body=packed,
        properties=BasicProperties(content_encoding="gzip"),
        reason="the body is compressed (gzip)",
    )
    for name, content in {"a batch": "[]", "no version": "{}", "no cloud event": head.decode() + "1}"}.items():
        yield Letter(
            name=f"cloud: {name}",
            routing_key=key,
            body=content.encode(),
            properties=BasicProperties(content_type="application/cloudevents+json"),
            reason="no" + ("t an object" if name == "a batch" else " CloudEvent of specversion 1.0"),
        )
    forged = b"".join(short(f"domain-events-{each}") + long("forged") for each in FORGED)
    yield Letter(
        name="forged report",
        routing_key=key.encode() + b".\xff\n",
        body=b"no event",
        properties=Raw(properties(forged, BasicProperties(message_id="m" * 250 + "\n\x1b[m", app_id="a"))),
        reason="not JSON",
    )
