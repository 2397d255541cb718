"""A file that holds the broker's URLs. It is read at each connect: a new password needs no restart."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator, Sequence
from typing import Any

from domain_events.broker_url import Broker, parse_broker
from domain_events.errors import ConfigurationError

logger = logging.getLogger(__name__)

_SEPARATOR = re.compile(r"\s*,\s*(?=amqps?://)")
_warned_of: set[str] = set()


class BrokerFile(Sequence[Broker]):
    """The nodes that a file names at the moment: each look reads it, and may raise ConfigurationError.

    Equal to another when the path is.
    """

    def __init__(self, path: str) -> None:
        # A process may change its directory later.
        self.path = os.path.abspath(path)

    def read(self) -> tuple[Broker, ...]:
        """Raises ConfigurationError when there is no such file, everybody may write it, or it holds anything else."""
        try:
            mode = os.stat(self.path).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                # A pipe would hold up who reads it, and is empty the second time.
                raise ConfigurationError(f"the broker file {self.path} is no regular file")
            _check_mode(self.path, mode)
            with open(self.path, "rb") as file:
                content = file.read()
        except OSError as error:
            raise ConfigurationError(f"the broker file {self.path} cannot be read: {error.strerror}") from error
        return brokers_in(content, self.path)

    def __iter__(self) -> Iterator[Broker]:
        return iter(self.read())

    def __len__(self) -> int:
        return len(self.read())

    def __getitem__(self, index: Any) -> Any:
        return self.read()[index]

    def __eq__(self, other: object) -> bool:
        return self.path == other.path if isinstance(other, BrokerFile) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.path)

    def __repr__(self) -> str:
        return f"BrokerFile({self.path!r})"


def split_urls(text: str) -> list[str]:
    """Of a comma-separated list. Not at every comma: one may stand in a password."""
    return _SEPARATOR.split(text.strip().rstrip(", "))


def brokers_in(content: bytes, path: str) -> tuple[Broker, ...]:
    """What the file `path` holds: URLs on lines of their own or separated by commas, and comments after "#".

    Raises ConfigurationError, which names the line.
    """
    try:
        lines = content.decode("utf-8-sig").splitlines()  # some editors begin with a byte order mark
    except UnicodeDecodeError:
        lines = None
    if lines is None:  # not in the `except`: that error holds the content
        raise ConfigurationError(f"the broker file {path} is no UTF-8 text")
    found: list[Broker] = []
    for number, line in enumerate(lines, 1):
        text = line.strip().strip(",").strip()
        if text and not text.startswith("#"):
            found += [parse_broker(url, f"the broker file {path}, line {number},") for url in split_urls(text)]
    if not found:
        raise ConfigurationError(f"the broker file {path} is empty; it must hold an AMQP URL")
    return tuple(found)


def _check_mode(path: str, mode: int) -> None:
    if mode & stat.S_IWOTH:
        raise ConfigurationError(
            f"everybody may write the broker file {path}, and so send us to a broker of theirs; chmod o-w {path}"
        )
    if mode & stat.S_IROTH and path not in _warned_of:
        # Not refused: secrets that containers mount are like this, and only the container sees them.
        _warned_of.add(path)
        logger.warning("everybody on this machine may read the broker file %s: chmod o-r would help", path)
