"""What is imported, and when: each module that a process need not have costs it time and memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

import domain_events


def loaded(code: str, *names: str) -> set[str]:
    """Which of these modules a new interpreter has after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*{set(names)!r} & sys.modules.keys(), file=sys.stderr)"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_the_package_alone_loads_neither_pika_nor_asyncio() -> None:
    assert loaded("import domain_events", "pika", "asyncio", "domain_events.errors") == {"domain_events.errors"}


def test_who_sends_does_not_load_what_receives() -> None:
    receiving = ("domain_events.receiver", "domain_events.handling", "domain_events.supervisor")
    assert loaded("from domain_events import send_domain_event", "pika", *receiving) == {"pika"}


@pytest.mark.parametrize(
    "arguments", [["status", "--control", "/nobody/is/here"], ["scale", "printer=2", "--control", "/nobody/is/here"]]
)
def test_a_command_of_the_operator_that_asks_no_broker_does_not_load_pika(arguments: list[str]) -> None:
    code = f"from domain_events.cli.operator.command import main\nimport contextlib, io\n\
with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):\n    main({arguments!r})"
    found = loaded(code, "pika", "asyncio", "domain_events.supervisor.control_client")
    assert found == {"domain_events.supervisor.control_client"}


def test_every_public_name_is_there_also_for_who_looks_at_the_package() -> None:
    assert set(domain_events.__all__) <= set(dir(domain_events))
    for name in domain_events.__all__:
        assert getattr(domain_events, name) is not None


def test_a_name_that_is_not_ours_is_an_attribute_error_that_says_so() -> None:
    with pytest.raises(AttributeError, match="module 'domain_events' has no attribute 'Reciever'"):
        domain_events.Reciever  # type: ignore[attr-defined]  # noqa: B018
