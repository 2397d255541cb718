"""A password that is unmistakable, in the clear, percent-encoded and in pieces."""

from __future__ import annotations

import secrets
import traceback
from urllib.parse import quote, urlsplit

import pytest

from tests.brokers import Broker

PASSWORD = "Xq7Begin/ü@9Zw8End#%"
PIECES = ("Xq7Begin", "9Zw8End")
"""Of any form of it; a malformed URL may be torn apart in the middle."""


def leaks(text: str) -> list[str]:
    """The places of `text` where a piece of it stands."""
    return [line.strip()[:300] for line in text.splitlines() if any(piece in line for piece in PIECES)]


def secret_url(url: str, user: str, password: str = PASSWORD) -> str:
    """The same broker for another login."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}").geturl()


def everything_of(error: BaseException) -> str:
    """All that a log or an error tracker would take of it, without the values of variables."""
    found: list[str] = []
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        found += [*traceback.format_exception(each), str(each), repr(each), repr(each.args), repr(vars(each))]
        todo += [each.__cause__, each.__context__]
    return "\n".join(found)


@pytest.fixture(scope="module")
def secret_login(broker: Broker) -> str:
    """The URL of a user who has this password. The broker is ours, and ends with him."""
    if not broker.owned:
        pytest.skip("needs a user of its own on the broker")
    user = f"user-{secrets.token_hex(3)}"
    broker.ctl("add_user", user, PASSWORD)
    broker.ctl("set_permissions", user, ".*", ".*", ".*")
    return secret_url(broker.url, user)
