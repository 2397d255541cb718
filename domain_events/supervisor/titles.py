"""What `ps` and `top` show of us. No broker, no event: everybody on the machine can read a title."""

from __future__ import annotations

import setproctitle


def remember_original() -> None:
    """To be called first thing in `main`.

    The library looks for the place of the arguments and the environment in memory at its first call, and must
    do so before anybody changes os.environ.
    """
    setproctitle.getproctitle()


def set_title(title: str, short: str) -> None:
    """`short` names this thread, cut to 15 bytes by the kernel: of the main thread `ps -o comm` and top show it.

    Second, because a title overwrites the short name of the thread that sets it.
    """
    setproctitle.setproctitle(title)
    setproctitle.setthreadtitle(short)


def hide_arguments(name: str) -> None:
    """At once: a URL after --broker has a password, and the application may take long to import."""
    set_title(f"domain-events: starting {name}", "domain-events")


def master_title(name: str, consuming: int, total: int) -> str:
    return f"domain-events: master {name} {consuming}/{total}"


def child_title(slot: str, state: str) -> str:
    return f"domain-events: receiver {slot} {state}"


def http_title(address: str) -> str:
    return f"domain-events: http {address}"
