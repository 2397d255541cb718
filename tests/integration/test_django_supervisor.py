"""The supervisor of a Django project, from the command to the rows that its handlers write."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest

from domain_events import Sender
from tests.brokers import Broker, Queues
from tests.databases import Postgres
from tests.django_project import MANAGE
from tests.proc import title
from tests.processes import Handle, Processes
from tests.waiting import wait_until

pytest_plugins = ["tests.django_project.fixtures"]

COMMAND = [sys.executable, str(MANAGE), "domain_events_supervisor"]
PLAIN = [sys.executable, "-m", "domain_events.cli.supervisor"]
WITHOUT_MANAGE_PY = [*PLAIN, "domain_events.django"]
BOTH = pytest.mark.parametrize("command", [COMMAND, WITHOUT_MANAGE_PY], ids=["manage.py", "without manage.py"])

Start = Callable[..., Handle]


@pytest.fixture
def start(
    shop: Any,
    shop_environment: dict[str, str],
    broker: Broker,
    queues: Queues,
    unique: str,
    processes: Processes,  # the last, so that they end before their queues do: they would make them again
) -> Start:
    """Starts a supervisor with queues, and a name for PostgreSQL, of this test alone."""
    for name in ("orders", "audit", "extra"):
        queues.forget_after(unique + name)

    def call(*command: str, **environment: str) -> Handle:
        return processes.start(
            command or COMMAND,
            {
                **shop_environment,
                "SHOP_BROKER": broker.url,
                "SHOP_PREFIX": unique,
                "SHOP_APPLICATION": unique,
                **environment,
            },
        )

    return call


@pytest.fixture
def order(broker: Broker, unique: str) -> Callable[[int], None]:
    """Sends the event that an order was placed."""

    def call(number: int) -> None:
        Sender(broker.url).send(f"{unique}order.placed", {"number": number}, mandatory=True)

    return call


def consuming(supervisor: Handle, unique: str) -> Handle:
    """The supervisor, once both receivers of the shop consume."""
    for name in ("orders", "audit"):
        wait_until(
            lambda name=name: any(
                "event=child_consuming" in line and f"{unique}{name}" in line
                for line in supervisor.output().splitlines()
            ),
            what=f"{name} consumes; the output:\n{supervisor.output()}",
        )
    return supervisor


@BOTH
def test_an_event_is_handled_in_an_installed_app_and_sigterm_ends_it(
    command: list[str], start: Start, order: Callable[[int], None], shop: Any, unique: str
) -> None:
    supervisor = consuming(start(*command), unique)
    assert len(supervisor.children()) == 2
    order(1)
    wait_until(lambda: shop.objects.filter(number=1).exists(), what="the row in the default database")
    wait_until(lambda: shop.objects.using("other").filter(number=1).exists(), what="the row in the other")
    supervisor.terminate()
    assert supervisor.wait() == 0
    assert supervisor.group() == []
    assert "Traceback" not in supervisor.output()


def test_the_title_names_the_project(start: Start, unique: str) -> None:
    supervisor = consuming(start(), unique)
    whole = "domain-events: master tests.django_project.settings 2/2"
    wait_until(lambda: title(supervisor.pid) == whole, what=f"the title {whole!r}")
    supervisor.terminate()
    assert supervisor.wait() == 0


def test_http_is_served_here_too(start: Start, unique: str) -> None:
    supervisor = consuming(start(*COMMAND, "--http", "0"), unique)
    output = supervisor.wait_output("event=http_serving")
    address = output.partition("event=http_serving")[2].partition("address=")[2].split()[0]
    with urlopen(f"http://{address}/readyz", timeout=60) as answer:
        assert json.load(answer)["receivers"] == 2
    supervisor.terminate()
    assert supervisor.wait() == 0
    assert supervisor.group() == []


def test_check_shows_the_receivers_of_installed_apps_and_of_named_modules(start: Start, unique: str) -> None:
    check = start(*COMMAND, "tests.django_project.extra", "--check", SHOP_APPS="tests.django_project.handbook")
    assert check.wait() == 0
    found = json.loads(check.output())
    assert [(entry["name"], entry["handler"]) for entry in found] == [
        (f"{unique}orders", "tests.django_project.shop.receivers.save_order"),
        (f"{unique}audit", "tests.django_project.shop.receivers.save_other_order"),
        (f"{unique}extra", "builtins.print"),
    ]


def test_without_manage_py_only_the_named_modules_are_taken_and_may_use_models(start: Start, unique: str) -> None:
    check = start(*PLAIN, "tests.django_project.shop.receivers", "--check")
    assert check.wait() == 0
    assert [entry["name"] for entry in json.loads(check.output())] == [f"{unique}orders", f"{unique}audit"]


def test_without_manage_py_settings_that_do_not_work_are_shown(start: Start) -> None:
    supervisor = start(*WITHOUT_MANAGE_PY, DJANGO_SETTINGS_MODULE="nowhere.settings")
    assert supervisor.wait() == 78
    assert "DJANGO_SETTINGS_MODULE=nowhere.settings" in supervisor.output()
    assert "No module named 'nowhere'" in supervisor.output()


def test_without_manage_py_and_without_settings_it_says_which_variable_to_set(processes: Processes) -> None:
    supervisor = processes.start(WITHOUT_MANAGE_PY, {"DJANGO_SETTINGS_MODULE": None})
    assert supervisor.wait() == 78
    assert "DJANGO_SETTINGS_MODULE" in supervisor.output()


def test_modules_can_be_named_in_the_environment(start: Start, unique: str) -> None:
    check = start(*COMMAND, "--check", "--only", f"{unique}extra", DOMAIN_EVENTS_MODULES="tests.django_project.extra")
    assert check.wait() == 0
    assert [entry["name"] for entry in json.loads(check.output())] == [f"{unique}extra"]


@BOTH
def test_an_error_in_receivers_is_shown_and_nothing_is_started(command: list[str], start: Start) -> None:
    supervisor = start(*command, SHOP_BREAK="1")
    assert supervisor.wait() == 78
    output = supervisor.output()
    assert "RuntimeError: the shop is broken" in output
    assert 'shop/receivers.py", line' in output
    assert "child_start" not in output


def test_without_any_receivers_it_says_what_to_write(start: Start) -> None:
    supervisor = start(
        sys.executable, "-m", "django", "domain_events_supervisor", DJANGO_SETTINGS_MODULE="tests.django_project.bare"
    )
    assert supervisor.wait() == 78
    assert "no installed app has a receivers.py" in supervisor.output()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--grace", "soon"], "--grace: 'soon' is no number of seconds"),
        (["--only", "nobody"], "there is no receiver 'nobody'"),
    ],
)
def test_wrong_usage_exits_64(arguments: list[str], says: str, start: Start) -> None:
    supervisor = start(*COMMAND, *arguments)
    assert supervisor.wait() == 64
    assert says in supervisor.output()
    assert "Traceback" not in supervisor.output()


def test_a_malformed_broker_exits_78_without_its_password(start: Start) -> None:
    supervisor = start(SHOP_BROKER="amqp://user:secret@host:port/")
    assert supervisor.wait() == 78
    assert "DOMAIN_EVENT_BROKER" in supervisor.output()
    assert "secret" not in supervisor.output()


def test_the_command_line_wins_over_the_settings(
    start: Start, broker: Broker, order: Callable[[int], None], shop: Any, unique: str
) -> None:
    consuming(start(*COMMAND, "--broker", broker.url, SHOP_BROKER="amqp://nobody.invalid"), unique)
    order(1)
    wait_until(lambda: shop.objects.filter(number=1).exists(), what="the row")


def test_no_database_connection_is_open_across_the_fork(start: Start, postgres: Postgres, unique: str) -> None:
    consuming(start(SHOP_QUERY_AT_IMPORT="1", SHOP_PERSISTENT_CONNECTIONS="1"), unique)
    # One that is persistent would stay; the end of one that was closed may take a moment.
    wait_until(lambda: not backends(postgres, unique), what="no connection")


@BOTH
@pytest.mark.parametrize("persistent", ["", "1"], ids=["for each event", "persistent"])
def test_a_database_connection_that_was_killed_does_not_fail_the_next_event(
    command: list[str],
    persistent: str,
    start: Start,
    order: Callable[[int], None],
    postgres: Postgres,
    queues: Queues,
    shop: Any,
    unique: str,
) -> None:
    consuming(start(*command, SHOP_PERSISTENT_CONNECTIONS=persistent), unique)
    for number in (1, 2, 3):
        order(number)
        wait_until(lambda number=number: shop.objects.filter(number=number).exists(), what=f"row {number}")
        if number == 2:
            # Without persistent connections none is left, or soon.
            wait_until(lambda: persistent or not backends(postgres, unique), what="the end of connections")
            kill(postgres, unique)
    first, second, third = shop.objects.order_by("number").values_list("backend", flat=True)
    assert (first == second) == bool(persistent)
    assert third not in (first, second)
    queues.wait_count(f"{unique}orders:dead", 0)


@BOTH
def test_logging_of_the_project_is_kept(command: list[str], start: Start, unique: str) -> None:
    own = consuming(start(*command, SHOP_LOGGING="1"), unique)
    own.terminate()
    assert own.wait() == 0
    assert all(line.startswith("OWN ") for line in own.output().splitlines())
    assert "event=drain_end" in own.output()


@BOTH
def test_logging_on_the_command_line_wins_over_the_project(command: list[str], start: Start, unique: str) -> None:
    asked = consuming(start(*command, "--log-format", "json", SHOP_LOGGING="1"), unique)
    asked.terminate()
    assert asked.wait() == 0
    assert all(json.loads(line)["level"] for line in asked.output().splitlines())


def backends(postgres: Postgres, application: str) -> list[int]:
    """The PostgreSQL processes that work for this test's supervisor."""
    with psycopg.connect(postgres.url) as server:
        rows = server.execute("select pid from pg_stat_activity where application_name = %s", [application])
        return [pid for (pid,) in rows]


def kill(postgres: Postgres, application: str) -> None:
    """Ends them, and waits until they are gone."""
    with psycopg.connect(postgres.url) as server:
        server.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s", [application]
        )
    wait_until(lambda: not backends(postgres, application), what="the end of the connections")
