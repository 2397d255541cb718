"""Free TCP ports on loopback that no other broker of this user has."""

from __future__ import annotations

import contextlib
import random
import socket

from private_broker.login import LOOPBACK
from private_broker.problem import Problem

# Below the ports that the system gives to outgoing connections (32768 on Linux): a broker that is down for a
# moment finds its port free again.
PORTS = range(20000, 32000)


class Ports:
    """Gives out ports; none twice, none of `taken`."""

    def __init__(self, taken: set[int]) -> None:
        self._taken = set(taken)

    def take(self, port: int) -> int:
        """Exactly this one."""
        if not self._free(port):
            raise Problem(f"port {port} is taken")
        self._taken.add(port)
        return port

    def pick(self) -> int:
        """Any that is free."""
        return self.take(next(port for port in random.sample(PORTS, len(PORTS)) if self._free(port)))

    def _free(self, port: int) -> bool:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((LOOPBACK, port))
                return port not in self._taken
        return False
