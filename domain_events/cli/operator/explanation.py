"""What `domain-events explain` has found, for people and for machines. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from domain_events.errors import BrokerError
from domain_events.registration import Registration
from domain_events.showing import printable
from domain_events.transport.explaining import OtherWay, Place, Verdict, Way, Ways
from domain_events.transport.routing import is_catch_all

_MOST_DELAYS = 4  # that are spelt out
_APPLY = "`domain-events topology apply MODULE`"


@dataclass(slots=True, kw_only=True)
class Answer:
    """What all brokers together have said."""

    found: list[tuple[str, Ways]] = field(default_factory=list)
    """Each broker, and what is there."""
    keys: list[str] = field(default_factory=list)
    """All binding keys that are known, those of the code first."""
    notes: list[str] = field(default_factory=list)
    """What could not be seen, and why."""
    problems: list[BrokerError] = field(default_factory=list)

    @property
    def ways(self) -> Iterator[Way]:
        return (way for _, ways in self.found for way in ways.receivers)

    @property
    def others(self) -> Iterator[OtherWay]:
        return (way for _, ways in self.found for way in ways.others)

    @property
    def reached(self) -> int:
        """How many queues get it, as far as can be known."""
        return sum(way.verdict is not Verdict.MISSING for way in self.ways) + sum(1 for _ in self.others)

    @property
    def is_asked_for(self) -> bool:
        """By anybody who does not ask for everything."""
        keys = [key for way in self.ways for key in (*way.keys, *(way.live_keys or ()))]
        keys += [key for way in self.others for key in way.keys]
        return not all(map(is_catch_all, keys))


# For machines


def as_json(routing_key: str, answer: Answer, meant: Sequence[str]) -> dict[str, Any]:
    return {
        "routing_key": routing_key,
        "receivers": [_receiver(broker, way) for broker, ways in answer.found for way in ways.receivers],
        "other_queues": [
            {
                "broker": broker,
                "exchange": way.exchange,
                "binding_keys": list(way.keys),
                "queue": _queue(way.queue),
                "temporary": way.is_temporary,
            }
            for broker, ways in answer.found
            for way in ways.others
        ],
        "other_exchanges": [
            {"broker": broker, "exchange": each.exchange, "binding_key": each.key, "to": each.to}
            for broker, ways in answer.found
            for each in ways.forwardings
        ],
        "suggestions": list(meant),
        "notes": answer.notes,
    }


def _receiver(broker: str, way: Way) -> dict[str, Any]:
    registration = way.registration
    policy = registration.policy
    return {
        "name": registration.name,
        "verdict": str(way.verdict),
        "differs": way.differs,
        "broker": broker,
        "exchange": registration.exchange,
        "binding_keys": list(way.keys),
        "live_binding_keys": None if way.live_keys is None else list(way.live_keys),
        "moving": way.is_moving,
        "queue": _queue(way.queue),
        "handler": registration.handler_name,
        "timeout": registration.timeout,
        "max_retries": policy.max_retries,
        "retry_on": [error.__name__ for error in policy.retry_on],
        "retry_delays": _delays(registration),
        "dead_letters": None if way.dead is None else _queue(way.dead),
    }


def _queue(place: Place) -> dict[str, Any]:
    return {
        "name": place.name,
        "exists": place.exists,
        "messages": place.messages,
        "consumers": place.consumers,
        "problem": place.problem,
    }


def _delays(registration: Registration) -> list[float]:
    """Seconds, without jitter, of the first few."""
    policy = registration.policy
    return [policy.backoff.delay(retries) for retries in range(min(policy.max_retries, _MOST_DELAYS))]


# For people


def lines(routing_key: str, answer: Answer, meant: Sequence[str]) -> Iterator[str]:
    for line in _foreign_lines(routing_key, answer, meant):
        yield printable(line)


def _foreign_lines(routing_key: str, answer: Answer, meant: Sequence[str]) -> Iterator[str]:
    yield _headline(routing_key, answer)
    if meant:
        only = "only whoever gets everything gets it; " if answer.reached else ""
        yield f"  {only}did you mean {', or '.join(meant)}?"
    for broker, ways in answer.found:
        where = f" at {broker}" if len(answer.found) > 1 else ""
        for way in ways.receivers:
            yield ""
            yield from _way(way, where)
        for other in ways.others:
            yield ""
            yield from _other(other, where)
        for each in ways.forwardings:
            yield ""
            yield f"exchange {each.to}{where} gets it too, and who is bound there is not shown here"
            yield f"  exchange {each.exchange} -> {each.key} -> exchange {each.to}"


def _headline(routing_key: str, answer: Answer) -> str:
    reached = answer.reached
    if not reached:
        return f"nobody gets {routing_key}" + (", as far as can be seen" if answer.notes else "")
    differing = sum(way.differs for way in answer.ways)
    head = f"{routing_key} comes to {_number(reached, 'queue')}"
    if not differing:
        return head
    return f"{head}; {differing} of the receivers {'is' if differing == 1 else 'are'} not as the code wants it"


def _way(way: Way, where: str) -> Iterator[str]:
    name = way.registration.name
    match way.verdict:
        case Verdict.GETS:
            yield f"{name}{where} gets it"
        case Verdict.BY_CODE:
            yield f"{name}{where} gets it if its queue is bound as the code wants it"
        case Verdict.STALE:
            yield f"{name}{where} gets it, though its code does not ask for it: STALE"
        case Verdict.MISSING:
            yield f"{name}{where} does not get it, though its code asks for it: MISSING"
    keys = ", ".join(way.keys if way.verdict is Verdict.MISSING else way.live_keys or way.keys)
    yield f"  exchange {way.registration.exchange} -> {keys} -> queue {way.queue.name}: {_state(way.queue)}"
    for line in _differences(way):
        yield f"  ! {line}"
    yield f"  -> {_handler(way.registration)}"
    yield f"  -> {_retries(way.registration)}"
    if way.dead is None:
        yield "  -> given up: logged at ERROR and gone (dead_letter=False)"
    else:
        yield f"  -> given up: dead letter in queue {way.dead.name}: {_state(way.dead, consumed=False)}"


def _differences(way: Way) -> Iterator[str]:
    if way.verdict is Verdict.MISSING and way.queue.exists is False:
        yield f"there is no such queue: the receiver declares it when it starts, and so does {_APPLY}"
    elif way.verdict is Verdict.MISSING:
        yield f"the queue is not bound: the receiver binds it when it starts, and so does {_APPLY}"
    elif way.missing_keys:
        yield f"not bound to {', '.join(way.missing_keys)}, which the code has as well; {_APPLY} binds it"
    if way.stale_keys:
        yield f"still bound to {', '.join(way.stale_keys)}, which the code has not got; {_APPLY} unbinds it"
    if way.is_moving:
        yield f"the queue is being made anew, and what is sent now waits beside it; {_APPLY} finishes that"
    if way.queue.exists and way.queue.consumers == 0 and way.verdict is not Verdict.MISSING:
        yield "nobody consumes: it waits in the queue until the receiver runs"


def _other(way: OtherWay, where: str) -> Iterator[str]:
    if way.is_ours:
        whose = "a receiver's of these modules, but by another exchange than the code says"
    elif way.is_temporary:
        whose = "somebody's temporary one, as of domain-events watch"
    else:
        whose = "of no receiver in these modules"
    yield f"queue {way.queue.name}{where} gets it: {whose}"
    yield f"  exchange {way.exchange} -> {', '.join(way.keys)} -> queue {way.queue.name}: {_state(way.queue)}"


def _state(place: Place, *, consumed: bool = True) -> str:
    if place.problem is not None:
        return place.problem
    if place.exists is None:
        return "not looked at"
    if not place.exists:
        return "does not exist"
    ready = None if place.messages is None else _number(place.messages, "event") + " ready"
    consumers = _number(place.consumers, "consumer") if consumed and place.consumers is not None else None
    return ", ".join(filter(None, (ready, consumers))) or "exists"


def _handler(registration: Registration) -> str:
    limit = f", at most {registration.timeout:g} s" if registration.timeout is not None else ""
    return f"handler {registration.handler_name}{limit}"


def _retries(registration: Registration) -> str:
    policy = registration.policy
    if not policy.max_retries:
        return "not retried"
    delays = [f"{delay:g} s" for delay in _delays(registration)]
    if policy.max_retries > _MOST_DELAYS:
        delays.append(f"... {policy.backoff.delay(policy.max_retries - 1):g} s")
    jitter = f" (give or take {policy.backoff.jitter:.0%})" if policy.backoff.jitter else ""
    when = " or ".join(["Retry", *(error.__name__ for error in policy.retry_on)])
    times = "once" if policy.max_retries == 1 else f"at most {policy.max_retries} times"
    return f"retried {times} when it raises {when}: after {', '.join(delays)}{jitter}"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
