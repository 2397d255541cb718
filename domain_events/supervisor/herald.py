"""Sends the alerts of the master, which has no connection itself: a process that lives for a moment, one at a time."""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby

from domain_events.errors import PartlySent
from domain_events.events import DomainEvent
from domain_events.lifecycle import HookFailed
from domain_events.registration import Registration
from domain_events.sending import Sender
from domain_events.settings import DEFAULT, ConnectionSettings
from domain_events.supervisor import lines
from domain_events.supervisor.alarms import Alarms, Seat
from domain_events.supervisor.logs import leave_all
from domain_events.supervisor.notify import forget_service_manager
from domain_events.supervisor.nursery import Errand
from domain_events.supervisor.slots import Rules
from domain_events.supervisor.spawn import Mask, die_with
from domain_events.supervisor.titles import set_title

logger = logging.getLogger(__package__)

_TIMEOUT = 10.0  # seconds for the broker to confirm
_LIFETIME = 30  # seconds, then the kernel ends it
_PAUSE = 5.0  # seconds between two of them: who fails meanwhile is told of by the next one


class Herald:
    """Belongs to the master's loop. What goes wrong here is a line in the log, and nothing else."""

    def __init__(self, registrations: Iterable[Registration], rules: Rules, selector: selectors.BaseSelector) -> None:
        # Alerts go where a receiver's own events go. New receivers of a reload have the configured broker.
        self._settings = {registration.name: registration.connection_settings for registration in registrations}
        self._alarms = Alarms(rules, os.getpid())
        self._selector = selector
        self._waiting: list[DomainEvent] = []
        self._errand: Errand | None = None
        self._answer = b""
        self._under_way: list[DomainEvent] = []
        self._not_before = 0.0

    @property
    def pids(self) -> list[int]:
        """Of a process that is still there, as far as is known."""
        return [self._errand.pid] if self._errand is not None else []

    def due(self, seats: Iterable[Seat], now: float) -> float | None:
        """When `look` has something to do without another sign of it."""
        if self._waiting and self._errand is None:
            return self._not_before
        return self._alarms.due(seats, now)

    def look(self, seats: Iterable[Seat], now: float, fork: Callable[[Callable[[int, Mask], int]], Errand]) -> None:
        """In each turn of the loop. `fork`: as `Nursery.send_out`, for the process that sends."""
        self._waiting += self._alarms.look(seats, now)
        if not self._waiting or self._errand is not None or now < self._not_before:
            return
        self._under_way, self._waiting = self._waiting, []
        self._answer = b""
        self._not_before = now + _PAUSE
        try:
            self._errand = fork(partial(_send, self._under_way, self._settings, os.getpid()))
        except (OSError, HookFailed) as error:
            self._failed({}, f"no process for it: {error}")
            return
        self._selector.register(self._errand.answers, selectors.EVENT_READ, self._on_answer)

    def close(self) -> None:
        """At the end of the master, which ends all that is left of its children."""
        if self._errand is not None:
            self._selector.unregister(self._errand.answers)
            os.close(self._errand.answers)
            self._errand = None

    def close_descriptors(self) -> None:
        """In a child of the master."""
        if self._errand is not None:
            os.close(self._errand.answers)

    def _on_answer(self) -> None:
        errand = self._errand
        assert errand is not None
        data = os.read(errand.answers, 65536)
        self._answer += data
        if data:
            return
        # It ends now. Whoever reaps strangers reaps it.
        self.close()
        try:
            self._failed(json.loads(self._answer), "")
        except ValueError:
            self._failed({}, "the process that should send it was ended")

    def _failed(self, reasons: Mapping[str, str], otherwise: str) -> None:
        for alert in self._under_way:
            reason = reasons.get(alert.uuid_string, otherwise)
            if reason:
                about, kind = alert.domain_object_id, alert.routing_key
                lines.write(logger, logging.WARNING, "alert_failed", receiver=about, alert=kind, reason=reason)
        self._under_way = []


def _send(
    alerts: Sequence[DomainEvent],
    settings: Mapping[str, ConnectionSettings],
    master: int,
    answers: int,
    mask: Mask,
) -> int:
    """In the process: says why which alerts could not be sent, by their ids."""
    logging.disable()  # the log is the master's; the one thing to be said goes through the pipe
    leave_all()
    forget_service_manager()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the application may have one of its own
    signal.alarm(_LIFETIME)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if not die_with(master):
        return 1
    set_title("domain-events: alerts", "de-alerts")
    reasons: dict[str, str] = {}

    def settings_of(alert: DomainEvent) -> ConnectionSettings:
        return settings.get(str(alert.domain_object_id), DEFAULT)

    for chosen, group in groupby(sorted(alerts, key=lambda a: id(settings_of(a))), settings_of):
        reasons.update(_sent(list(group), chosen))
    os.write(answers, json.dumps(reasons).encode())
    return 0


def _sent(alerts: Sequence[DomainEvent], settings: ConnectionSettings) -> dict[str, str]:
    try:
        with Sender(settings) as sender:
            sender.send_many(alerts, timeout=_TIMEOUT, mandatory=True)
    except PartlySent as error:
        pairs = zip(error.unconfirmed, error.causes, strict=True)
        return {alert.uuid_string: str(cause) for alert, cause in pairs}
    except Exception as error:  # noqa: BLE001  whatever it is, the master should say it
        return {alert.uuid_string: f"{type(error).__name__}: {error}" for alert in alerts}
    return {}
