"""The flags of the supervisor and their twins in the environment."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import pytest

from domain_events.supervisor.addresses import Address
from domain_events.supervisor.arguments import GROUPS, SWITCHES, add_arguments, read_options
from domain_events.supervisor.options import Options, UsageError
from domain_events.supervisor.restarts import Backoff
from domain_events.supervisor.selection import select
from domain_events.supervisor.slots import Rules
from domain_events.supervisor.wear import Lifespan
from tests.supervising import registered


def options(*arguments: str, **environ: str) -> Options:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return read_options(vars(parser.parse_args(arguments)), environ)


EACH: Mapping[str, tuple[str, object]] = {
    "only": ("a, b", ("a", "b")),
    "except_": ("a,b,", ("a", "b")),
    "processes": ("a=2, b=4", {"a": 2, "b": 4}),
    "grace": ("1.5", 1.5),
    "kill_after": ("0", 0.0),
    "backoff": ("0.1:10", Backoff(base=0.1, cap=10)),
    "stable_after": ("5", 5.0),
    "give_up_after": ("0", 0.0),
    "spawn_rate": ("2", 2.0),
    "boot_timeout": ("9", 9.0),
    "hang_timeout": ("0", 0.0),
    "max_event_crashes": ("0", 0),
    "ready": ("consuming", "consuming"),
    "max_events": ("1000", 1000),
    "max_age": ("3600", 3600.0),
    "max_rss": ("1.5G", 3 * 2**29),
    "broker": ("amqp://h", "amqp://h"),
    "broker_file": ("/f", "/f"),
    "log_level": ("debug", "DEBUG"),
    "log_format": ("json", "json"),
    "control": ("/c", "/c"),
    "lock": ("/l", "/l"),
    "http": (":9100", Address("127.0.0.1", 9100)),
    "http_token_file": ("/t", "/t"),
    "http_hosts": ("Shop.example, b", ("shop.example", "b")),
}


def test_every_flag_is_tested_here() -> None:
    assert [flag.name for flags in GROUPS.values() for flag in flags] == list(EACH)


@pytest.mark.parametrize("name", EACH)
def test_a_flag_and_its_twin_in_the_environment_mean_the_same(name: str) -> None:
    text, value = EACH[name]
    flag = name.rstrip("_").replace("_", "-")
    assert getattr(options(f"--{flag}", text), name) == value
    twin = options(**{f"DOMAIN_EVENTS_{flag.replace('-', '_').upper()}": text})
    expected = getattr(Options(), name) if name == "broker" else value  # its twins are those of section 2
    assert getattr(twin, name) == expected


def test_a_flag_wins_over_the_environment_and_an_empty_variable_is_not_set() -> None:
    assert options("--grace", "1", DOMAIN_EVENTS_GRACE="2").grace == 1
    assert options(DOMAIN_EVENTS_GRACE="").grace == 30


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_has_a_twin_too(name: str) -> None:
    assert getattr(options(f"--{name}"), name)
    assert getattr(options(**{f"DOMAIN_EVENTS_{name.upper()}": "1"}), name)
    assert not getattr(options(**{f"DOMAIN_EVENTS_{name.upper()}": "0"}), name)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("10k", 10240), ("300M", 300 * 2**20), ("300MiB", 300 * 2**20), ("0.5GB", 2**29)],
)
def test_a_size_has_the_usual_letters(text: str, size: int) -> None:
    assert options("--max-rss", text).max_rss == size
    assert options("--max-rss", text).lifespan == Lifespan(rss=size)


def test_the_control_socket_is_in_the_runtime_directory_of_a_unit() -> None:
    assert options(RUNTIME_DIRECTORY="/run/shop:/run/other").control == "/run/shop/control.sock"
    assert options("--control", "/c", RUNTIME_DIRECTORY="/run/shop").control == "/c"


def test_the_defaults_are_those_of_the_contract() -> None:
    assert options() == Options()
    assert options().rules == Rules(
        grace=30, kill_after=5, backoff=Backoff(base=0.5, cap=60), stable_after=30, boot_timeout=60
    )
    assert (options().give_up_after, options().spawn_rate) == (300, 20)
    assert (options().hang_timeout, options().max_event_crashes) == (120, 2)
    assert options().lifespan == Lifespan()


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("hang-timeout", "-1"),
        ("max-event-crashes", "-1"),
        ("max-event-crashes", "two"),
        ("max-events", "0"),
        ("max-age", "0"),
        ("max-rss", "0"),
        ("max-rss", "300X"),
        ("max-rss", "-1M"),
        ("grace", "soon"),
        ("grace", "-1"),
        ("grace", "nan"),
        ("grace", "inf"),
        ("kill-after", "5s"),
        ("boot-timeout", "0"),
        ("spawn-rate", "0"),
        ("backoff", "1"),
        ("backoff", "2:1"),
        ("backoff", "0:1"),
        ("processes", "a"),
        ("processes", "a=0"),
        ("processes", "a=x"),
        ("processes", "=2"),
        ("processes", "a=1001"),
        ("only", ","),
        ("log-level", "loud"),
        ("log-format", "xml"),
        ("ready", "soon"),
        ("lock", " "),
        ("http-hosts", "https://shop.example"),
        ("http-hosts", "shop.example:80"),
    ],
)
def test_a_bad_value_names_the_flag_or_the_variable_it_came_from(flag: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"^--{flag}: "):
        options(f"--{flag}={text}")
    variable = f"DOMAIN_EVENTS_{flag.replace('-', '_').upper()}"
    with pytest.raises(UsageError, match=f"^{variable}: "):
        options(**{variable: text})


RECEIVERS = [registered(f"{name}=steady") for name in ("printer", "mailer", "sync_data")]


def chosen(**values: object) -> list[tuple[str, int]]:
    return [(r.name, r.processes) for r in select(RECEIVERS, Options(**values))]  # type: ignore[arg-type]


def test_only_except_and_processes_choose_receivers() -> None:
    assert chosen() == [("printer", 1), ("mailer", 1), ("sync_data", 1)]
    assert chosen(only=("mailer", "printer")) == [("printer", 1), ("mailer", 1)]
    assert chosen(except_=("mailer",), processes={"printer": 3}) == [("printer", 3), ("sync_data", 1)]


@pytest.mark.parametrize("name", ["only", "except_", "processes"])
def test_an_unknown_receiver_is_answered_with_a_suggestion(name: str) -> None:
    value = {"prnter": 2} if name == "processes" else ("prnter",)
    with pytest.raises(UsageError, match="there is no receiver 'prnter'; did you mean 'printer'"):
        chosen(**{name: value})
    with pytest.raises(UsageError, match="there are mailer, printer, sync_data"):
        chosen(only=("zzz",))


def test_leaving_no_receiver_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="leave no receiver"):
        chosen(only=("mailer",), except_=("mailer",))
