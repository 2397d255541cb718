"""The stand-in of a child for the sinks of one logger: their levels and filters here, the writing in the master."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from multiprocessing_logging import MultiProcessingHandler

from domain_events.supervisor.log_frames import pack
from domain_events.supervisor.log_sender import LogSender
from domain_events.supervisor.sinks import ROOT, Sinks, StandIn, choose, loggers_with_handlers, replace

_inherited: list[logging.Handler] = []  # kept by a child, for their finalizers could flush, close or wait


class Forwarder(MultiProcessingHandler, StandIn):  # type: ignore[misc]  # the package has no types
    """Never waits, and needs no lock."""

    def __init__(self, logger: str | None, sinks: Sequence[logging.Handler], sender: LogSender, *, are_same: bool):
        """logger: whose sinks they are; None: of none, the last resort of `logging`.
        are_same: the sinks of the master are these. Else it has others, which choose themselves what they want.
        """
        # Not the base's own: it makes a queue of the default start method (since Python 3.14 forkserver), and a
        # thread at the wrong end.
        logging.Handler.__init__(self, 0 if are_same else min((sink.level for sink in sinks), default=0))
        self.sub_handler = sender.stderr
        self.sinks = sinks
        self._logger = logger
        self._sender = sender
        self._are_same = are_same

    def handle(self, record: logging.LogRecord) -> bool:
        """As in `logging`, but without the lock: nobody waits for a slow `repr()`."""
        self.emit(record)
        return True

    def _format_record(self, record: logging.LogRecord) -> list[bytes]:
        if not self._are_same:
            return [pack(record, self._logger, None)]
        return [pack(kept, self._logger, positions) for kept, positions in choose(self.sinks, record)]

    def _send(self, frames: list[bytes]) -> None:
        for frame in frames:
            self._sender.send(frame)

    def handleError(self, record: logging.LogRecord) -> None:
        """There is no stack or memory left. Nothing on stderr: nobody may be there to read it."""
        self._sender.drop()

    def close(self) -> None:
        """Called by `logging.shutdown` and `dictConfig`. The pipe belongs to the sender."""
        logging.Handler.close(self)


def take_over(sinks: Sinks, in_master: Mapping[str, int], sender: LogSender) -> None:
    """Put stand-ins where there are sinks. Called in a child.

    sinks: those of this process. in_master: how many sinks each logger has there; what has none there stays here.
    """
    for logger in loggers_with_handlers():
        own = sinks.get(logger.name, [])
        n = in_master.get(logger.name, 0)
        if n and (own or logger.name == ROOT):
            _inherited.extend(logger.handlers)
            replace(logger, Forwarder(logger.name, own, sender, are_same=len(own) == n))
    sender.stderr.setFormatter(next((sink.formatter for sink in sinks.get(ROOT, []) if sink.formatter), None))
    last = logging.lastResort
    if not in_master.get(ROOT) and last is not None:
        sinks_of_last = last.sinks if isinstance(last, StandIn) else [last]
        logging.lastResort = Forwarder(None, sinks_of_last, sender, are_same=False)
