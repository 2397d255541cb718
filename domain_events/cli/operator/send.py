"""`domain-events send`: an event, or many, from the shell."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from domain_events.cli.operator import connecting
from domain_events.cli.operator.json_input import SLICE, opened
from domain_events.cli.operator.output import OutputFailed, put, say
from domain_events.cli.operator.parsing import Parser, UsageError, moment, positive_seconds
from domain_events.errors import (
    ConfigurationError,
    ConnectionFailed,
    DomainEventError,
    InvalidName,
    PartlySent,
    SendError,
    Unroutable,
)
from domain_events.supervisor.protocol import OperatorExit

if TYPE_CHECKING:
    from domain_events.events import DomainEvent
    from domain_events.sending import Sender

_TIMEOUT = 10.0  # seconds
_EPILOG = """\
DATA is JSON: '{"user_id": 1}', 17, null; a text has double quotes of its own, '"text"'. It returns when the broker has
confirmed that the event is in every queue that is bound for it, and prints the event's id and routing key. That nobody
gets it is no error, but with --mandatory. --lines prints what is confirmed as it goes; when it fails or is
interrupted (Ctrl-C), it tells which lines are confirmed and which are not.
The broker is --broker, --broker-file, DOMAIN_EVENT_PRODUCER_BROKER, then DOMAIN_EVENT_BROKER.
exit codes: 0 confirmed, 1 not (or not all): refused, not in time, or nobody would get it (--mandatory),
            2 usage, or no JSON, 3 the broker cannot be reached, 130 interrupted

examples:
  domain-events send user.disabled '{"user_id": 1}'
  domain-events send user.disabled '{"user_id": 1}' --domain-object-id 1 --mandatory
  domain-events send user.disabled --file user.json --timestamp 2026-11-30T12:00:00Z
  domain-events send nightly.finished null --json
  domain-events send user.imported --lines --file users.jsonl
  psql shop -Atc "select row_to_json(users) from users" | domain-events send user.imported --lines
"""


def add(add_parser: Callable[..., Parser]) -> None:
    parser = add_parser("send", help="send an event, or many, and wait until the broker has confirmed", epilog=_EPILOG)
    parser.takes_any_order = True
    parser.add_argument("routing_key", metavar="ROUTING_KEY", help="as user.disabled")
    parser.add_argument("data", metavar="DATA", nargs="?", help="JSON; -: from stdin")
    parser.add_argument("--file", metavar="FILE", help="holds the data, in place of DATA")
    parser.add_argument(
        "--lines", action="store_true", help="each line of FILE, or of stdin, is the data of an event of its own"
    )
    parser.add_argument("--id", metavar="ID", help="of the event (default: a random UUID)")
    parser.add_argument("--domain-object-id", metavar="ID", help="of what the event is about")
    parser.add_argument(
        "--timestamp", metavar="TIME", type=moment, help="Unix seconds, or 2026-11-30T12:00:00Z (default: now)"
    )
    parser.add_argument("--mandatory", action="store_true", help="exit 1 when no queue would get it")
    parser.add_argument("--exchange", metavar="NAME", help="default: domain-events")
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=positive_seconds,
        default=_TIMEOUT,
        help=f"seconds to wait for the broker, with --lines for each {SLICE} events (default: {_TIMEOUT:g})",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the events as they were sent, one JSON object a line"
    )
    connecting.add_broker(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    try:
        with opened(arguments) as slices, _sender(arguments) as sender, _Patience() as patience:
            return _Sending(arguments, sender, patience).run(slices)
    except (InvalidName, ConfigurationError) as error:
        raise UsageError(str(error)) from error


def _sender(arguments: argparse.Namespace) -> Sender:
    from domain_events.sending import EXCHANGE, Sender

    return Sender(connecting.broker_of(arguments, "producer"), arguments.exchange or EXCHANGE)


class _Patience:
    """Ctrl-C while events are under way: their confirms are waited for, so that it is known what became of them."""

    def __init__(self) -> None:
        self.is_sending = False
        self.signal: int | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        is_first = self.signal is None
        self.signal = number
        if not (self.is_sending and is_first):
            raise KeyboardInterrupt
        say("waiting for the confirms of what is under way; once more: leave at once")


class _Sending:
    """Keeps the books: which lines are confirmed."""

    def __init__(self, arguments: argparse.Namespace, sender: Sender, patience: _Patience) -> None:
        self._arguments = arguments
        self._sender = sender
        self._patience = patience
        self._confirmed = 0
        self._last = 0
        """The last line that was tried."""
        self._in_doubt: list[int] = []
        """Lines that are under way."""

    def run(self, slices: Iterable[Sequence[tuple[int, Any]]]) -> int:
        """Raises UsageError when nothing was sent because of it."""
        try:
            for data in slices:
                failed = self._send(data)
                if failed:
                    return self._fail(failed)
                if self._patience.signal is not None:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            self._tell("interrupted")
            return 128 + (self._patience.signal or signal.SIGINT)
        except (UsageError, OutputFailed, OSError) as error:
            if not self._last:
                raise
            self._tell(str(error))
            return OperatorExit.FAILED
        if self._arguments.lines:
            say(f"{_events(self._confirmed)} confirmed")
        return OperatorExit.DONE

    def _send(self, data: Sequence[tuple[int, Any]]) -> list[tuple[int, SendError]]:
        events = [(line, self._event(each, line)) for line, each in data]
        self._in_doubt = [line for line, _ in events]
        self._last = events[-1][0]
        failed: dict[str, SendError] = {}
        self._patience.is_sending = True
        try:
            self._sender.send_many(
                [event for _, event in events], timeout=self._arguments.timeout, mandatory=self._arguments.mandatory
            )
        except PartlySent as error:
            failed = {event.uuid_string: cause for event, cause in zip(error.unconfirmed, error.causes, strict=True)}
        confirmed = [event for _, event in events if event.uuid_string not in failed]
        self._confirmed += len(confirmed)
        self._in_doubt = []
        self._patience.is_sending = False
        if confirmed:
            put("\n".join(map(self._line, confirmed)))
        return [(line, failed[event.uuid_string]) for line, event in events if event.uuid_string in failed]

    def _event(self, data: Any, line: int) -> DomainEvent:
        from domain_events.events import DomainEvent

        a = self._arguments
        try:
            event = DomainEvent(a.routing_key, data, a.domain_object_id, a.id, a.timestamp)
            event.encode()  # what cannot be written is to be known by its line
        except InvalidName:
            raise
        except (DomainEventError, ValueError) as error:
            raise UsageError(f"line {line}: {error}" if a.lines else str(error)) from error
        return event

    def _line(self, event: DomainEvent) -> str:
        return event.to_json() if self._arguments.json else f"{event.uuid_string} {event.routing_key}"

    def _fail(self, failed: Sequence[tuple[int, SendError]]) -> int:
        causes = {type(cause): cause for _, cause in reversed(failed)}
        if not self._arguments.lines:
            say(f"{failed[0][1]}{self._hint(failed[0][1])}")
        else:
            self._tell("stopped")
            for kind, cause in causes.items():
                lines = [line for line, each in failed if type(each) is kind]
                say(f"not confirmed: {_ranges(lines)}: {cause}{self._hint(cause)}")
        unreachable = all(isinstance(cause, ConnectionFailed) for cause in causes.values())
        return OperatorExit.UNREACHABLE if unreachable else OperatorExit.FAILED

    def _hint(self, cause: SendError) -> str:
        if not isinstance(cause, Unroutable):
            return ""
        return f"; `domain-events explain {self._arguments.routing_key}` shows who gets what is like it"

    def _tell(self, why: str) -> None:
        if not self._arguments.lines:
            doubt = "; whether the event has arrived is not known" if self._in_doubt else "; nothing was sent"
            say(why + (doubt if not self._confirmed else "; the event is confirmed"))
            return
        say(f"{why}: {_events(self._confirmed)} confirmed; what comes after line {self._last} was not sent")
        if self._in_doubt:
            say(f"perhaps sent: {_ranges(self._in_doubt)}")


# Words


def _events(count: int) -> str:
    return f"{count} event{' is' if count == 1 else 's are'}"


def _ranges(lines: Sequence[int]) -> str:
    """Ascending numbers, as `lines 1-3, 7`."""
    parts: list[list[int]] = []
    for line in lines:
        if parts and parts[-1][1] == line - 1:
            parts[-1][1] = line
        else:
            parts.append([line, line])
    texts = [f"{first}" if first == last else f"{first}-{last}" for first, last in parts]
    return f"line{'' if len(lines) == 1 else 's'} {', '.join(texts)}"
