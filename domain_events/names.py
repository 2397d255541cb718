"""What routing keys, binding keys and receiver names may look like.

Lengths are in UTF-8 bytes: AMQP 0-9-1 carries them as short strings of at most 255 bytes.
"""

from __future__ import annotations

from domain_events.errors import InvalidName

LONGEST_KEY = 255
LONGEST_RECEIVER_NAME = 200  # leaves room for ":retry:<ms>"


def check_routing_key(key: object) -> str:
    """Return `key`, or raise InvalidName: 1..255 bytes, words separated by ".", no "*" or "#"."""
    text = _check_key("routing key", key)
    if "*" in text or "#" in text:
        raise InvalidName(f"routing key {text!r} holds a wildcard; * and # belong into binding keys")
    return text


def check_binding_key(key: object) -> str:
    """Return `key`, or raise InvalidName: as a routing key, with "*" and "#" as whole words."""
    text = _check_key("binding key", key)
    for word in text.split("."):
        if ("*" in word or "#" in word) and len(word) > 1:
            raise InvalidName(f"binding key {text!r}: a wildcard must be a whole word, but there is {word!r}")
    return text


def check_receiver_name(name: object) -> str:
    """Return `name`, or raise InvalidName: 1..200 bytes, printable, none of the reserved forms."""
    text = _check_text("receiver name", name, LONGEST_RECEIVER_NAME)
    if text.startswith("amq."):
        raise InvalidName(f"receiver name {text!r}: names that begin with 'amq.' belong to the broker")
    if text.endswith(":dead") or ":retry:" in text:
        raise InvalidName(
            f"receiver name {text!r}: ':dead' at the end and ':retry:' are kept for the queues of a receiver"
        )
    return text


def check_exchange_name(name: object) -> str:
    """Return `name`, or raise InvalidName: 1..255 bytes, printable, not one of the broker's own."""
    text = _check_text("exchange", name, LONGEST_KEY)
    if text.startswith("amq."):
        raise InvalidName(f"exchange {text!r}: names that begin with 'amq.' belong to the broker")
    return text


def check_app_id(value: object) -> str:
    """Return `value`, or raise InvalidName: 1..255 bytes, printable."""
    return _check_text("app_id", value, LONGEST_KEY)


def _check_key(what: str, key: object) -> str:
    text = _check_text(what, key, LONGEST_KEY)
    if "" in text.split("."):
        raise InvalidName(f"{what} {text!r} holds an empty word; words are separated by single dots")
    return text


def _check_text(what: str, value: object, longest: int) -> str:
    if not isinstance(value, str):
        raise InvalidName(f"{what} must be a string, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidName(f"{what} {value!r} holds a lone surrogate and cannot be written as UTF-8") from None
    if not size:
        raise InvalidName(f"{what} must not be empty")
    if size > longest:
        raise InvalidName(f"{what} {value[:60]!r}... has {size} bytes; the longest is {longest}")
    if not value.isprintable():
        raise InvalidName(f"{what} {value!r} holds a control character")
    return value
