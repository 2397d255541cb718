"""What is found in the modules of an application."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from domain_events.errors import ConfigurationError
from domain_events.supervisor.discovery import discover

RECEIVER = """
from domain_events import Receiver
receiver = Receiver()
@receiver.handles({name!r}, ["user.*"])
def handle(event): ...
"""


class App:
    """A package of a fresh name in the current directory."""

    def __init__(self, folder: Path) -> None:
        self.name = f"app_{uuid4().hex}"
        self._folder = folder / self.name
        self._folder.mkdir()
        self.write("__init__", "")

    def write(self, module: str, text: str) -> str:
        (self._folder / f"{module}.py").write_text(text)
        return f"{self.name}.{module}"

    def found(self, *modules: str) -> list[str]:
        return [registration.name for registration in discover(modules)]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    app = App(tmp_path)
    yield app
    for name in [name for name in sys.modules if name.startswith(app.name)]:
        del sys.modules[name]


def unique() -> str:
    return f"receiver-{uuid4().hex}"


def test_modules_of_the_current_directory_are_imported(app: App) -> None:
    first, second = unique(), unique()
    modules = [app.write("a", RECEIVER.format(name=first)), app.write("b", RECEIVER.format(name=second))]
    assert app.found(*modules) == [first, second]


def test_a_receiver_that_several_modules_know_is_found_once(app: App) -> None:
    name = unique()
    first = app.write("a", RECEIVER.format(name=name))
    second = app.write("b", f"from {first} import receiver\nagain = receiver\n")
    assert app.found(second, first, second) == [name]


def test_of_a_package_its_imported_submodules_count(app: App) -> None:
    name = unique()
    app.write("sub", RECEIVER.format(name=name))
    app.write("unimported", "raise RuntimeError")
    app.write("__init__", "from . import sub")
    assert app.found(app.name) == [name]


def test_no_receiver_says_what_a_module_needs(app: App) -> None:
    module = app.write("empty", "")
    with pytest.raises(ConfigurationError, match=rf"no receiver in {module}: .*Receiver\(\)"):
        discover([module])


def test_an_unknown_module_is_named_without_a_traceback(app: App) -> None:
    with pytest.raises(ConfigurationError, match="there is no module 'nothing_here'") as caught:
        discover(["nothing_here.receivers"])
    assert "File" not in str(caught.value)


def test_a_path_is_answered_with_the_name_of_the_module(app: App) -> None:
    with pytest.raises(ConfigurationError, match=r"is a path; give the module's name, as app\.receivers"):
        discover(["./app/receivers.py"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def f():\n    return 1 / 0\nf()\n", "ZeroDivisionError: division by zero"),
        ("import nothing_here_either\n", "No module named 'nothing_here_either'"),
        ("def f(:\n", "SyntaxError"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    ],
)
def test_an_error_of_the_module_is_shown_with_its_place(app: App, text: str, told: str) -> None:
    module = app.write("broken", text)
    with pytest.raises(ConfigurationError, match=f"cannot import '{module}'") as caught:
        discover([module])
    message = str(caught.value)
    assert told in message
    assert "broken.py" in message
    assert "importlib" not in message


def test_a_name_that_is_taken_is_an_error_that_names_it(app: App) -> None:
    name = unique()
    first, second = (app.write(module, RECEIVER.format(name=name)) for module in "ab")
    with pytest.raises(ConfigurationError, match=f"(?s)cannot import '{second}'.*{name}"):
        discover([first, second])
