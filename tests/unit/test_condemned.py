"""An event that has killed too often is set aside, and nothing else is begun until the broker has it there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from domain_events import DomainEvent
from domain_events.gate import Gate
from domain_events.guarding import guarded
from domain_events.oversight import Oversight, Suspicion
from domain_events.transport.settlement import Settlement
from domain_events.transport.subscription import DEFAULT_PREFETCH, Delivery, Subscription
from tests.deliveries import Desk, delivery, handling, runner
from tests.registrations import register
from tests.waiting import wait_until

CONDEMNED = Suspicion(deaths=2, cause="SIGSEGV", condemned=True)


class SlowDesk(Desk):
    """Settles when the test says so."""

    def settle(self, delivery: Delivery, settlement: Settlement) -> None:
        self.in_hand.remove(delivery)
        self.settled.append((delivery, settlement))

    def tell(self, is_acked: bool) -> None:
        for each, _ in self.settled:
            watched = each.subscription.watched
            while watched:
                watched.popitem()[1](is_acked)


def judge(event_id: str) -> Suspicion | None:
    return CONDEMNED if event_id == "id-0" else None


@pytest.mark.parametrize("is_acked", [True, False], ids=["acked", "comes again"])
def test_the_next_event_begins_when_it_is_settled_and_only_an_ack_forgives(is_acked: bool) -> None:
    desk, forgiven, seen = SlowDesk(), list[str](), list[Any]()
    made = runner(desk, judge=judge, forgive=forgiven.append)

    def work() -> None:
        for n in range(2):
            made.run(delivery(handling(lambda event: seen.append(event.data)), n))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    desk.wait(1)
    thread.join(0.05)
    assert (seen, forgiven) == ([], [])
    desk.tell(is_acked)
    thread.join(20)
    assert seen == [1]
    assert forgiven == (["id-0"] if is_acked else [])


def test_with_threads_it_has_the_process_for_itself_until_then() -> None:
    desk, seen, gate = SlowDesk(), list[Any](), Gate()
    made = runner(desk, judge=judge, gate=gate)
    threads = []
    for n in range(4):
        args = (delivery(handling(lambda event: seen.append(event.data)), n),)
        threads.append(threading.Thread(target=made.run, args=args, daemon=True))
        threads[-1].start()
        wait_until(lambda n=n: len(desk.in_hand) + len(desk.settled) == n + 1, what=f"delivery {n} is begun")  # type: ignore[misc]
        desk.wait(1)
    assert seen == []
    desk.tell(True)
    for thread in threads:
        thread.join(20)
    assert sorted(seen) == [1, 2, 3]


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_with_coroutines_too_and_whoever_cancels_them_lets_the_others_begin(is_cancelled: bool) -> None:
    desk, seen, forgiven = SlowDesk(), list[Any](), list[str]()

    async def handle(event: DomainEvent) -> None:
        seen.append(event.data)

    async def run() -> None:
        made = runner(desk, judge=judge, forgive=forgiven.append, gate=Gate())
        tasks = [asyncio.create_task(made.run_async(delivery(handling(handle), n))) for n in range(3)]
        while len(desk.in_hand) + len(desk.settled) < 3:
            await asyncio.sleep(0)
        assert (len(desk.settled), seen) == (1, [])
        if is_cancelled:
            tasks[0].cancel()
        else:
            threading.Thread(target=desk.tell, args=(True,), daemon=True).start()
        await asyncio.wait(tasks, timeout=20)

    asyncio.run(run())
    assert sorted(seen) == [1, 2]
    assert forgiven == ([] if is_cancelled else ["id-0"])
    desk.tell(True)  # the loop is no more
    assert forgiven == ["id-0"]


def test_an_overseer_that_fails_to_forgive_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def forgive(event_id: str) -> None:
        raise KeyError(event_id)

    overseer = guarded(
        Oversight(forced=lambda _in_hand: None, judge=judge, forgive=forgive, beat=lambda: None, beat_every=1.0)
    )
    desk = Desk()
    made = runner(desk, judge=overseer.judge, forgive=overseer.forgive)
    made.run(delivery(handling(print), 0))
    assert len(desk.settled) == 1
    [record] = [record for record in caplog.records if record.exc_info]
    assert "oversight" in record.getMessage()


class Channel:
    """Takes what it is told, and answers when the test says so."""

    is_open = True

    def __init__(self) -> None:
        self.acked: list[int] = []
        self.answers: list[Callable[[object], None]] = []

    def basic_ack(self, tag: int, multiple: bool) -> None:
        assert not self.answers, "what is asked after the ack is answered after it"
        self.acked.append(tag)

    def basic_nack(self, tag: int, requeue: bool) -> None: ...

    def basic_qos(self, prefetch_count: int, callback: Callable[[object], None]) -> None:
        assert prefetch_count == DEFAULT_PREFETCH, "nothing changes"
        self.answers.append(callback)


def channel() -> Any:
    return Channel()


class Subscribed:
    """A subscription with three deliveries."""

    def __init__(self) -> None:
        self.channel = channel()
        lane: Any = None
        clock: Any = None
        self.subscription = Subscription(register(), lane, print, clock=clock)
        self.subscription.channel = self.channel
        self.told: dict[int, list[bool]] = {}
        self.deliveries = [delivery(register(), n) for n in range(1, 4)]
        for tag, each in enumerate(self.deliveries, 1):
            each.subscription, each.channel, each.tag = self.subscription, self.channel, tag
            self.subscription.unsettled.add(tag)
            self.told[tag] = []

    def ask(self, tag: int) -> None:
        self.deliveries[tag - 1].when_settled(self.told[tag].append)


def test_a_subscription_tells_who_asks_when_the_broker_has_the_ack() -> None:
    subscribed = Subscribed()
    subscription = subscribed.subscription
    for tag in (1, 2, 3):
        subscribed.ask(tag)
    subscription.unsettled.done(2)
    subscription.send_acks()
    assert subscribed.channel.acked == [2]
    assert subscribed.told == {1: [], 2: [], 3: []}, "written into a buffer, perhaps"
    subscription.unsettled.remove(3)
    subscription.unsettled.add(3)
    subscription.send_acks()
    [answer] = subscribed.channel.answers  # asked once
    answer(None)
    assert subscribed.told == {1: [], 2: [True], 3: []}
    subscription.give_back(1)
    assert subscribed.told == {1: [False], 2: [True], 3: []}
    subscription.reset()
    assert subscribed.told == {1: [False], 2: [True], 3: [False]}
    assert subscription.watched == {}


def test_an_ack_that_the_broker_has_not_answered_when_the_channel_is_lost_may_be_lost_too() -> None:
    subscribed = Subscribed()
    subscribed.ask(1)
    subscribed.subscription.unsettled.done(1)
    subscribed.subscription.send_acks()
    subscribed.subscription.reset()
    assert subscribed.told[1] == [False]
    [answer] = subscribed.channel.answers
    answer(None)
    assert subscribed.told[1] == [False]


def test_nobody_is_asked_where_nobody_wants_to_know() -> None:
    subscribed = Subscribed()
    subscribed.subscription.unsettled.done(1)
    subscribed.subscription.send_acks()
    assert subscribed.channel.answers == []


def test_who_asks_about_a_delivery_of_a_lost_channel_learns_that_it_comes_again() -> None:
    subscribed = Subscribed()
    subscribed.subscription.reset()
    subscribed.ask(1)
    assert subscribed.told[1] == [False]
    # The same number on the next channel is another delivery.
    subscribed.subscription.channel = channel()
    subscribed.subscription.unsettled.add(1)
    subscribed.subscription.unsettled.done(1)
    subscribed.subscription.send_acks()
    assert subscribed.told[1] == [False]
