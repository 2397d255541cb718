"""Observers in the children of a supervisor: one that hangs is found like a hung handler."""

from __future__ import annotations

from tests.acceptance.deploying import Connected

OBSERVED = """
from domain_events import NullObserver, observe


class Troublesome(NullObserver):
    def handled(self, receiver, event, seconds):
        if event.data.get("hang"):
            time.sleep(600)
        raise RuntimeError("of the observer")


observe(Troublesome())
receive("work", timeout=2.0)
"""


def test_an_observer_that_hangs_is_ended_and_one_that_raises_holds_up_nothing(connected: Connected) -> None:
    connected.clean("work")
    connected.app.write("1", OBSERVED)
    master = connected.start(children=1)
    connected.send("work.asked", *range(5))
    connected.send("work.asked", 5, hang=True)
    connected.send("work.asked", *range(6, 10))
    handled = connected.wait_handled("work", range(10))
    connected.queues.wait_count(f"{connected.prefix}work:dead", 1)
    assert connected.stop() == 0
    assert {n for n, times in handled.items() if times > 1} <= {5}
    hung = master.lines("child_hung", slot=f"{connected.prefix}work#0")
    assert [line["reason"] for line in hung] == ["timeout 2.0s"] * 2
    # Each process says once what its observer raises.
    said = [line for line in master.log() if "the observer Troublesome failed in handled()" in line["message"]]
    assert len({line["process"] for line in said}) == len(said) <= 3
    assert said
