"""What the master knows of a receiver, and what it hands to a new child. Plain values: they can travel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from domain_events.registration import Registration
from domain_events.supervisor.shm import Region
from domain_events.supervisor.wear import Lifespan


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One receiver, without its handler: that lives where its code was imported."""

    receiver: str
    processes: int = 1
    concurrency: int = 1  # events in hand at a time, in one child
    timeout: float | None = None  # seconds, for one event
    is_async: bool = False
    single_active: bool = False

    @classmethod
    def of(cls, registration: Registration) -> Post:
        return cls(
            receiver=registration.name,
            processes=registration.processes,
            concurrency=registration.concurrency,
            timeout=registration.timeout,
            is_async=registration.is_async,
            single_active=registration.single_active,
        )


def posts_of(registrations: Iterable[Registration]) -> tuple[Post, ...]:
    return tuple(Post.of(registration) for registration in registrations)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOrders:
    """For the child that serves HTTP."""

    slot: str  # its name in the logs
    master: int  # its pid
    address: str  # where it serves, for people


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """For one child: who it is, where it notes things down, and its limits. Durations in seconds."""

    receiver: str
    slot: str  # as printer#0
    master: int  # its pid
    record: Region
    blame: Region
    orphan_patience: float  # that an orphan has for the event in hand
    beat_every: float
    lifespan: Lifespan
    alerts: bool = False  # whether it tells others of what it gives up

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Orders:
        """What `dataclasses.asdict` has made plain."""
        return cls(
            **{
                **values,
                "record": Region(**values["record"]),
                "blame": Region(**values["blame"]),
                "lifespan": Lifespan(**values["lifespan"]),
            }
        )
