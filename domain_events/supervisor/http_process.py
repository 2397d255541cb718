"""The life of the child that serves HTTP: from the fork to its exit code. It is no receiver."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

from domain_events.errors import ConfigurationError
from domain_events.registration import Registration
from domain_events.supervisor.child import die_before_the_master
from domain_events.supervisor.exits import ChildExit
from domain_events.supervisor.logs import LogLine
from domain_events.supervisor.notify import forget_service_manager
from domain_events.supervisor.posts import HttpOrders
from domain_events.supervisor.reports import Reporter
from domain_events.supervisor.spawn import Mask, die_with
from domain_events.supervisor.stacks import write_stacks_to
from domain_events.supervisor.titles import http_title, set_title

logger = logging.getLogger(__name__)

GIVEN = ("listener", "asking", "acting")
"""What this child gets beside what every child gets, in this order."""

_LOG_FLUSH = 2.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What there is to serve with. Both sockets speak the control protocol: a question is answered at once, what
    `acting` asks for may take its time."""

    registrations: Sequence[Registration]
    listener: socket.socket
    asking: socket.socket
    acting: socket.socket
    address: str
    hosts: Sequence[str]  # by which it may be asked, beside its address
    token: str | None = field(repr=False)
    serving: Callable[[], object]
    """To be called when requests are answered from now on."""


class Serve(Protocol):
    """What this child is for: `domain_events.web.serving.serve`, or a test's. Returns after a SIGTERM."""

    def __call__(self, desk: Desk, /) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpService:
    """The same for every such child, wherever its code was imported."""

    serve: Serve
    token: str | None = field(repr=False)
    hosts: Sequence[str] = ()  # by which it may be asked, beside its address


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPlace:
    """What the child gets from its master."""

    registrations: Sequence[Registration]
    orders: HttpOrders
    status_fd: int  # to be written
    stacks_fd: int  # to be written, by C code in any state of the interpreter
    log: LogLine
    given: Sequence[int]  # see GIVEN
    let_go: Sequence[int]  # what only receivers need
    service: HttpService


class HttpProcess:
    """It, inside of it."""

    def __init__(self, place: HttpPlace) -> None:
        self._place = place

    def run(self, mask: Mask) -> int:
        """The exit code. `mask` is set once signals have their handlers."""
        place = self._place
        place.log.in_child()
        for fd in place.let_go:
            os.close(fd)
        forget_service_manager()
        self._install_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        die_before_the_master()
        # Killed with it: there is nothing here that would have to be finished.
        if not die_with(place.orders.master):
            return ChildExit.ORPHANED
        set_title(http_title(place.orders.address), "http")
        code = self._serve()
        place.log.close_in_child(_LOG_FLUSH)
        return code

    def _serve(self) -> int:
        place = self._place
        listener, asking, acting = (socket.socket(fileno=fd) for fd in place.given)
        desk = Desk(
            registrations=place.registrations,
            listener=listener,
            asking=asking,
            acting=acting,
            address=place.orders.address,
            hosts=place.service.hosts,
            token=place.service.token,
            serving=Reporter(place.status_fd).booted,
        )
        try:
            place.service.serve(desk)
        except ConfigurationError as error:
            logger.error("HTTP cannot be served until a person changes something: %s", error)
            return ChildExit.CONFIGURATION
        except BaseException:
            logger.exception("the child that serves HTTP crashed")
            return ChildExit.CRASHED
        return ChildExit.DRAINED

    def _install_signals(self) -> None:
        # Until the server has a better answer to it.
        signal.signal(signal.SIGTERM, _leave)
        signal.signal(signal.SIGQUIT, _leave)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        write_stacks_to(self._place.stacks_fd)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(ChildExit.DRAINED)
