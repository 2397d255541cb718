"""A loader: the process that has imported new code, and makes children of it for a master that runs.

It is the same command, started again by the master with a socket in its environment. It imports the application,
says what it has found or why it cannot, and then waits for orders. Its children become the master's (`spawn_away`).
Code that cannot be imported ends a loader, and nothing else.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import traceback
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import asdict
from typing import Any

from domain_events.errors import DomainEventError
from domain_events.lifecycle import HookFailed, run_before_fork
from domain_events.registration import Registration
from domain_events.supervisor.child import Child, Consume, Place
from domain_events.supervisor.http_process import GIVEN, HttpPlace, HttpProcess, HttpService
from domain_events.supervisor.logs import LogLine
from domain_events.supervisor.notify import forget_service_manager
from domain_events.supervisor.posts import HttpOrders, Orders, posts_of
from domain_events.supervisor.shm import Arena
from domain_events.supervisor.spawn import Mask, die_with, settle_memory, spawn_away
from domain_events.supervisor.titles import set_title
from domain_events.supervisor.watch import source_directories
from domain_events.version import __version__

VARIABLE = "DOMAIN_EVENTS_LOADER"
"""Holds FD:PID: the socket to the master, and its pid."""

FDS = ("status", "stacks", "lifeline", "log", "arena")
"""What comes with an order, in this order; and after it what the child that serves HTTP is given."""

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2)


class Channel:
    """Lines of JSON on a socket, with descriptors one way."""

    def __init__(self, fd: int, master: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self.master = master

    def say(self, **values: Any) -> None:
        self._socket.sendall(json.dumps(values).encode() + b"\n")

    def hear(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next order; None at the end. The master waits for an answer before it sends the next."""
        data, fds, _, _ = socket.recv_fds(self._socket, 65536, len(FDS) + len(GIVEN))
        if not data:
            return None
        for fd in fds:
            os.set_inheritable(fd, False)  # or what a handler starts would have it too
        while not data.endswith(b"\n"):
            data += self._socket.recv(65536) or b"\n"
        order: dict[str, Any] = json.loads(data)
        return order, fds

    def close(self) -> None:
        self._socket.close()


def channel_to_master(environ: MutableMapping[str, str]) -> Channel | None:
    """Where this process is a loader. Whatever it starts is none."""
    text = environ.pop(VARIABLE, "")
    if not text:
        return None
    fd, _, master = text.partition(":")
    os.set_inheritable(int(fd), False)
    return Channel(int(fd), int(master))


def serve(
    channel: Channel,
    load: Callable[[], Sequence[Registration]],
    *,
    consume: Consume,
    boot: Callable[[], None],
    title: str,
    http: Callable[[], HttpService | None] = lambda: None,
) -> int:
    """Be a loader until the master closes the channel. The exit code is of no interest to anybody.

    `load` and `http` raise ConfigurationError, or what the application raises.
    """
    if not die_with(channel.master):
        return 1
    forget_service_manager()
    try:
        registrations = load()
        service = http()
    except BaseException as error:  # noqa: BLE001  the application's code; whatever it is, the master must hear it
        channel.say(failed=_message(error))
        return 1
    # Ctrl-C, and systemd with KillMode=control-group, tell all of us; we end when the master lets go.
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    settle_memory()
    set_title(f"domain-events: loader {title}", "de-loader")
    posts = [asdict(post) for post in posts_of(registrations)]
    channel.say(version=__version__, posts=posts, directories=source_directories())
    workshop = _Workshop(registrations, consume=consume, boot=boot, http=service)
    while (heard := channel.hear()) is not None:
        order, fds = heard
        try:
            run_before_fork()
            pid = spawn_away(workshop.child(order, fds), channel.close)
        except OSError as error:
            channel.say(error=error.strerror or str(error))
        except HookFailed as error:
            traceback.print_exception(error)
            channel.say(error=str(error))
        else:
            channel.say(pid=pid)
        finally:
            for fd in fds:
                os.close(fd)
    return 0


class _Workshop:
    """Makes children of this process's code."""

    def __init__(
        self,
        registrations: Sequence[Registration],
        *,
        consume: Consume,
        boot: Callable[[], None],
        http: HttpService | None,
    ) -> None:
        self._registrations = {registration.name: registration for registration in registrations}
        self._consume = consume
        self._boot = boot
        self._http = http

    def child(self, order: dict[str, Any], fds: Sequence[int]) -> Callable[[Mask], int]:
        """What it runs, for an order of the master and the descriptors that came with it."""
        ends = dict(zip(FDS, fds, strict=False))
        given = fds[len(FDS) :]
        if order["kind"] == "http":
            return lambda mask: self._serve_http(HttpOrders(**order["orders"]), order["sinks"], ends, given, mask)
        return lambda mask: self._receive(Orders.from_values(order["orders"]), order["sinks"], ends, mask)

    def _receive(self, orders: Orders, sinks: Sequence[str], ends: Mapping[str, int], mask: Mask) -> int:
        place = Place(
            registration=self._registrations[orders.receiver],
            orders=orders,
            status_fd=ends["status"],
            stacks_fd=ends["stacks"],
            lifeline_fd=ends["lifeline"],
            log=LogLine.from_writer(orders.slot, ends["log"], sinks),
            arena=Arena(ends["arena"]),
            boot=self._boot,
            consume=self._consume,
        )
        return Child(place).run(mask)

    def _serve_http(
        self, orders: HttpOrders, sinks: Sequence[str], ends: Mapping[str, int], given: Sequence[int], mask: Mask
    ) -> int:
        assert self._http is not None  # the master orders none where nobody has asked for it
        place = HttpPlace(
            registrations=tuple(self._registrations.values()),
            orders=orders,
            status_fd=ends["status"],
            stacks_fd=ends["stacks"],
            log=LogLine.from_writer(orders.slot, ends["log"], sinks),
            given=given,
            let_go=(ends["lifeline"], ends["arena"]),
            service=self._http,
        )
        return HttpProcess(place).run(mask)


def _message(error: BaseException) -> str:
    if isinstance(error, DomainEventError):
        return str(error)
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        return f"the application ended the import: {error!r}"
    return "".join(traceback.format_exception(error, limit=-3)).rstrip()
