"""What `ps` and `top` show of us. No broker, no event: everybody on the machine can read a title."""

from __future__ import annotations

import setproctitle


def remember_original() -> None:
    """To be called first thing in `main`.

    The library looks for the place of the arguments and the environment in memory at its first call, and must
    do so before anybody changes os.environ.
    """
    setproctitle.getproctitle()


def set_title(title: str) -> None:
    setproctitle.setproctitle(title)


def set_short_name(name: str) -> None:
    """The name of this thread, which the kernel cuts to 15 bytes: `comm` in ps, the column of top.

    After `set_title` in the main thread, which changes it as well.
    """
    setproctitle.setthreadtitle(name)


def master_title(name: str, consuming: int, total: int) -> str:
    return f"domain-events: master {name} {consuming}/{total}"


def child_title(slot: str, state: str) -> str:
    return f"domain-events: receiver {slot} {state}"
