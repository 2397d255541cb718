"""The documents' tables say what the code says, their links lead somewhere, and their commands exist."""

from __future__ import annotations

import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from domain_events.supervisor.arguments import GROUPS
from domain_events.supervisor.exits import ChildExit, MasterExit
from domain_events.supervisor.slots import State
from tests.documents import BLOCKS, DOCUMENTS, ROOT, Block, table

FOREIGN_COMMANDS = {"pip"}


def test_the_table_of_flags_is_that_of_the_parser() -> None:
    rows = {row[0].strip("`"): row[1:] for row in table("docs/operating.md", "flag")}
    for flags in GROUPS.values():
        for flag in flags:
            twin, meaning = rows.pop(f"{flag.option} {flag.metavar}")
            assert meaning == flag.help
            assert twin == f"`{flag.variable}`" if flag.twin else "DOMAIN_EVENT_BROKER" in twin
    assert set(rows) == {"MODULE ...", "--check", "--alerts", "--watch", "--version", "--help`, `-h"}


def test_the_flags_in_the_documents_are_those_of_the_command() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "bin" / "domain-events-supervisor", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    flag = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
    documented = {name for row in table("docs/operating.md", "flag") for name in flag.findall(row[0])}
    assert documented == set(flag.findall(done.stdout))


@pytest.mark.parametrize(("number", "codes"), [(0, MasterExit), (1, ChildExit)], ids=["master", "child"])
def test_the_tables_of_exit_codes_are_those_of_the_code(number: int, codes: type[MasterExit | ChildExit]) -> None:
    rows = table("docs/operating.md", "code")
    begin = [index for index, row in enumerate(rows) if row[0] == "0"]
    mine = rows[begin[number] : (begin + [len(rows)] * 2)[number + 1]]
    assert [(int(row[0]), row[1]) for row in mine] == [(code.value, code.name) for code in codes]


def test_the_table_of_log_lines_names_all_events() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "domain_events" / "supervisor").glob("*.py"))
    call = r'(?:log_line\(|lines\.write\(logger, |return to_text\()[^"\n]*\s*(?:[^"\n]*,\n\s*)?"(\w+)"'
    events = set(re.findall(call, source))
    assert {row[0].strip("`") for row in table("docs/operating.md", "`event=`")} == events


def test_the_table_of_states_names_all_that_are_shown() -> None:
    assert {row[0].strip("`") for row in table("docs/operating.md", "state")} == {state.shown for state in State}


def test_the_layers_are_those_that_the_linter_checks() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert "\n".join(layers) in [block.text for block in BLOCKS if block.document == "docs/internals.md"]


def test_the_names_in_internals_are_those_of_the_code() -> None:
    rooms = "|".join(path.stem for path in (ROOT / "domain_events").iterdir() if path.suffix == ".py" or path.is_dir())
    names = re.findall(rf"`((?:{rooms})\.[\w.]+)", (ROOT / "docs" / "internals.md").read_text())
    assert len(names) > 30
    for name in names:
        pkgutil.resolve_name(f"domain_events.{name}")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_shell_examples_of_the_readme_name_commands_that_exist() -> None:
    lines = [line for block in shell_blocks() if block.document == "README.md" for line in block.text.splitlines()]
    assert {line.split()[0] for line in lines if not line.startswith("#")} <= own_commands() | FOREIGN_COMMANDS


def test_all_shell_examples_call_only_commands_of_ours_that_exist() -> None:
    ours = re.compile(r"(?<![\w/.-])(bin/[\w-]+|domain-events-[\w-]+)(?=\s|$)", re.MULTILINE)
    called = {name for block in shell_blocks() for name in ours.findall(block.text)}
    assert called <= own_commands()


def shell_blocks() -> list[Block]:
    return [block for block in BLOCKS if block.language in ("sh", "console")]


def own_commands() -> set[str]:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    return {*scripts, *(f"bin/{path.name}" for path in (ROOT / "bin").iterdir() if os.access(path, os.X_OK))}


def test_the_tests_that_the_guarantees_name_are_there() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text()
    files = list((ROOT / "tests").rglob("test_*.py"))
    tests = [name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)]
    known = {path.name for path in files} | set(tests)
    named = {Path(name).name for name in re.findall(r"`((?:[\w/]+/)?test_\w+(?:\.py)?)`", text)}
    assert len(named) > 30
    assert named <= known, named - known
