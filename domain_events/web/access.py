"""Who may read, and who may change something: the token, sessions that stand for it, and forms that are ours. Pure."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

SESSION = 12 * 3600.0
"""Seconds that somebody stays logged in."""

_TRIES = 5  # wrong ones in a row, of one address
_TRY_EVERY = 6.0  # seconds, after those
_MOST_ADDRESSES = 1000


class Access:
    """Nothing is kept: whoever restarts this process does not log anybody out."""

    def __init__(self, token: str | None, clock: Callable[[], float] = time.time) -> None:
        """Without a token everybody may read who can reach us, and nobody may change anything.

        `clock`: Unix seconds.
        """
        self._token = token
        self._clock = clock
        # Who sees a cookie cannot get back to the token, nor a new token be used with an old cookie.
        self._key = hashlib.sha256(b"domain-events session\0" + (token or secrets.token_hex(32)).encode()).digest()

    @property
    def has_token(self) -> bool:
        return self._token is not None

    def is_token(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(_digest(given), _digest(self._token))

    def new_session(self) -> str:
        """For a cookie."""
        head = f"{int(self._clock())}.{secrets.token_urlsafe(12)}"
        return f"{head}.{self._sign('session', head)}"

    def is_session(self, given: str) -> bool:
        head, _, signature = given.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("session", head).encode()):
            return False
        began = int(head.partition(".")[0])  # we have written it
        return self.has_token and 0 <= self._clock() - began + 1 <= SESSION

    def form_token(self, session: str) -> str:
        """To stand in each form of this session: what others make a browser send does not have it."""
        return self._sign("form", session)

    def is_form_token(self, given: str, session: str) -> bool:
        return hmac.compare_digest(given.encode(), self.form_token(session).encode())

    def _sign(self, what: str, text: str) -> str:
        return hmac.new(self._key, f"{what}\0{text}".encode(), hashlib.sha256).hexdigest()


def is_own_origin(origin: str | None, host: str) -> bool:
    """Whether a form comes from a page of ours. The scheme does not count: a proxy may speak TLS for us."""
    try:
        return origin is not None and urlsplit(origin).netloc.lower() == host.lower() != ""
    except ValueError:  # half an IPv6 address
        return False


class Limiter:
    """Wrong tokens, by address: five at once, then one in six seconds. A right one counts for nothing meanwhile."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._debts: OrderedDict[str, tuple[float, float]] = OrderedDict()  # of wrong tries, and when it was counted

    def may_try(self, address: str) -> bool:
        return self._debt(address) <= _TRIES - 1

    def wrong(self, address: str) -> None:
        debt = self._debt(address) + 1
        self._debts[address] = (debt, self._clock())
        self._debts.move_to_end(address)
        while len(self._debts) > _MOST_ADDRESSES:
            self._debts.popitem(last=False)

    def _debt(self, address: str) -> float:
        debt, at = self._debts.get(address, (0.0, 0.0))
        return max(0.0, debt - (self._clock() - at) / _TRY_EVERY)


def _digest(text: str) -> bytes:
    # Of equal length: the time of a comparison tells nothing, not even that.
    return hashlib.sha256(text.encode(errors="replace")).digest()
