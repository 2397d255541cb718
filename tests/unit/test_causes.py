"""Why a child was replaced, as metrics call it."""

from __future__ import annotations

import signal

import pytest

from domain_events.supervisor.causes import USUAL, Cause, cause_of
from domain_events.supervisor.exits import Ending
from domain_events.supervisor.slots import Slot


@pytest.mark.parametrize(
    ("ending", "cause"),
    [
        (Ending(code=70), "crash"),
        (Ending(code=0), "exit"),
        (Ending(code=3), "exit"),
        (Ending(code=78), "configuration"),
        (Ending(code=75), "recycle"),
        (Ending(), "unknown"),
        (Ending(signal=signal.SIGKILL), "SIGKILL"),
        (Ending(signal=signal.SIGSEGV), "SIGSEGV"),
        (Ending(signal=40), "signal 40"),
    ],
)
def test_the_end_of_a_child_that_had_booted(ending: Ending, cause: str) -> None:
    assert cause_of(Slot(receiver="a", index=0, booted=True), ending, in_hand=False) == cause


@pytest.mark.parametrize("code", [75, 78])
def test_a_handler_that_ends_the_process_with_a_number_of_ours_has_another_cause(code: int) -> None:
    assert cause_of(Slot(receiver="a", index=0, booted=True), Ending(code=code), in_hand=True) == "exit"


def test_who_did_not_boot_has_not_crashed() -> None:
    slot = Slot(receiver="a", index=0)
    for ending in (Ending(code=71), Ending(code=70), Ending(signal=signal.SIGKILL), Ending()):
        assert cause_of(slot, ending, in_hand=False) == "boot"
    assert cause_of(slot, Ending(code=78), in_hand=False) == "configuration"


@pytest.mark.parametrize(
    ("hung", "cause"), [("timeout 2.0s", "timeout"), ("no sign of life for 120s", "hang")], ids=["timeout", "hang"]
)
def test_of_who_hung_it_does_not_matter_how_it_was_ended(hung: str, cause: str) -> None:
    slot = Slot(receiver="a", index=0, booted=True, hung=hung)
    for ending in (Ending(code=80), Ending(signal=signal.SIGKILL), Ending(code=75)):
        assert cause_of(slot, ending, in_hand=True) == cause


def test_all_names_are_counted_from_the_beginning() -> None:
    assert {str(cause) for cause in Cause} < set(USUAL)
    assert {"SIGKILL", "SIGSEGV"} < set(USUAL)
    assert len(set(USUAL)) == len(USUAL)
