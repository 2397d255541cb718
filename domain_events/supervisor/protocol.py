"""What the operator's command and the master say to each other: one JSON object on one line, each way. Pure."""

from __future__ import annotations

import difflib
import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from domain_events.errors import DomainEventError
from domain_events.names import LONGEST_RECEIVER_NAME

LONGEST_REQUEST = 64 * 1024
"""Bytes of a request's line."""

LONGEST_REPLY = 64 * 1024 * 1024
"""Bytes of a reply's line: the status of some 200 000 processes."""

LONGEST_PATH = 107
"""Bytes of a socket's path: sun_path of unix(7) has 108, with the zero byte at its end."""

MOST_CLIENTS = 32
"""At a time. More are told so and have to come again."""

PATIENCE = 10.0
"""Seconds that a client has for its request, and for taking the reply."""

MOST_PROCESSES = 1000
"""Of one receiver."""


class OperatorExit(enum.IntEnum):
    """What the command `domain-events` says to whoever started it."""

    DONE = 0
    FAILED = 1  # some of it did not work; of `status`: some receiver does not consume
    USAGE = 2
    UNREACHABLE = 3  # no master, or no broker, answers
    UNKNOWN = 4  # no such receiver, no such id


class ProtocolError(DomainEventError):
    """A line that is no request, or no reply. Says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Status:
    """How does everything do?"""


@dataclass(frozen=True, slots=True)
class Metrics:
    """What has been counted and measured? The answer is a `metering.MetricsReport`."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Fresh processes for this receiver."""

    receiver: str


@dataclass(frozen=True, slots=True)
class Scale:
    """So many processes for this receiver from now on; 0 stops it."""

    receiver: str
    processes: int


@dataclass(frozen=True, slots=True)
class Reload:
    """New code. `wait`: the reply comes when all of it runs, or has failed."""

    wait: bool = False


@dataclass(frozen=True, slots=True)
class Inspect:
    """As `Status`, and more of each process. `receiver`: also the stacks that its processes have written last."""

    receiver: str = ""


_COMMANDS = ("status", "inspect", "metrics", "restart", "scale", "reload")

Request: TypeAlias = Status | Inspect | Metrics | Restart | Scale | Reload


@dataclass(frozen=True, slots=True)
class Done:
    """What was asked for has happened, or has been begun. `data["message"]`, if there: for people."""

    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Failed:
    """`code` is an OperatorExit; `message` is for people, and names the remedy."""

    message: str
    code: int


Reply: TypeAlias = Done | Failed


def control_path(environ: Mapping[str, str]) -> str | None:
    """Where the socket is when no flag says it: DOMAIN_EVENTS_CONTROL, else $RUNTIME_DIRECTORY/control.sock."""
    if path := environ.get("DOMAIN_EVENTS_CONTROL"):
        return path
    # A unit with several gets all of them, separated by colons (systemd.exec(5)).
    directory = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return f"{directory}/control.sock" if directory else None


def unknown_receiver(name: str, known: Sequence[str]) -> Failed:
    """The reply to a request for a receiver that is not there."""
    similar = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {similar[0]!r}?" if similar else f"there are {', '.join(sorted(known)) or 'none'}"
    return Failed(f"there is no receiver {name!r}; {hint}", OperatorExit.UNKNOWN)


def write_request(request: Request) -> bytes:
    match request:
        case Status():
            return _line({"command": "status"})
        case Metrics():
            return _line({"command": "metrics"})
        case Inspect(receiver=receiver):
            return _line({"command": "inspect", **({"receiver": receiver} if receiver else {})})
        case Restart(receiver=receiver):
            return _line({"command": "restart", "receiver": receiver})
        case Scale(receiver=receiver, processes=processes):
            return _line({"command": "scale", "receiver": receiver, "processes": processes})
        case Reload(wait=wait):
            return _line({"command": "reload", "wait": wait})
        case _:
            assert_never(request)


def read_request(line: bytes) -> Request:
    """Raises ProtocolError, whatever the bytes are."""
    fields = _object("request", line)
    command = fields.pop("command", None)
    match command:
        case "status":
            request: Request = Status()
        case "metrics":
            request = Metrics()
        case "inspect":
            request = Inspect(_receiver(fields) if "receiver" in fields else "")
        case "restart":
            request = Restart(_receiver(fields))
        case "scale":
            request = Scale(_receiver(fields), _processes(fields))
        case "reload":
            request = Reload(_flag(fields, "wait"))
        case _:
            raise ProtocolError(f"unknown command {_quoted(command)}; there are {', '.join(_COMMANDS)}")
    if fields:
        # Not passed over: what a newer command asks for must not be done by halves.
        raise ProtocolError(f"{command} does not know {_quoted(min(fields))}")
    return request


def write_reply(reply: Reply) -> bytes:
    """Raises TypeError or ValueError when the data of a Done is nothing that JSON can hold."""
    match reply:
        case Done(data=data):
            return _line({"ok": True, "data": data})
        case Failed(message=message, code=code):
            return _line({"ok": False, "code": int(code), "message": message})
        case _:
            assert_never(reply)


def read_reply(line: bytes) -> Reply:
    """Raises ProtocolError, whatever the bytes are."""
    fields = _object("reply", line)
    match fields:
        case {"ok": True, "data": dict(data)}:
            return Done(data)
        case {"ok": False, "message": str(message), "code": int(code)}:
            return Failed(message, code)
        case _:
            raise ProtocolError("the reply is none of ours")


def _line(value: Mapping[str, object]) -> bytes:
    # ASCII: lone surrogates and line separators of every kind leave as escapes.
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def _object(what: str, line: bytes) -> dict[str, object]:
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError:
        raise ProtocolError(f"the {what} is not UTF-8") from None
    except (ValueError, RecursionError):  # also numbers too long and lists too deep for Python
        raise ProtocolError(f"the {what} is not JSON") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"the {what} is no JSON object")
    return value


def _receiver(fields: dict[str, object]) -> str:
    value = fields.pop("receiver", None)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_RECEIVER_NAME:
        raise ProtocolError(f"receiver must be a name, not {_quoted(value)}")
    return value


def _processes(fields: dict[str, object]) -> int:
    value = fields.pop("processes", None)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_PROCESSES:
        raise ProtocolError(f"processes must be a whole number from 0 to {MOST_PROCESSES}, not {_quoted(value)}")
    return value


def _flag(fields: dict[str, object], name: str) -> bool:
    value = fields.pop(name, False)
    if not isinstance(value, bool):
        raise ProtocolError(f"{name} must be true or false, not {_quoted(value)}")
    return value


def _quoted(value: object) -> str:
    """Of what somebody has sent: short, ASCII, and not as deep as it may be."""
    if not isinstance(value, (str, int, float, type(None))):
        return f"a {type(value).__name__}"
    text = ascii(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
