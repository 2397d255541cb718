"""The unit in systemd/: what it says, whether systemd takes it, and that what it relies on is true of the command."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from domain_events.supervisor.arguments import GROUPS
from domain_events.supervisor.exits import MasterExit
from domain_events.supervisor.options import Options
from tests.acceptance.deploying import Deployed
from tests.acceptance.service import COMMAND
from tests.processes import ROOT

UNIT = ROOT / "systemd" / "domain-events-supervisor@.service"
FOLDER = "/opt/domain-events/%i"
PROGRAM = f"{FOLDER}/bin/domain-events-supervisor"
OPERATOR = f"{FOLDER}/bin/domain-events"
EXPOSURE = 2.0
"""Of 10, as `systemd-analyze security` counts; 8.4 without the hardening."""

Unit = Mapping[tuple[str, str], list[str]]


@pytest.fixture
def unit() -> Unit:
    """(section, key) -> its values, in order: a key may stand there more than once (systemd.syntax(7))."""
    found = defaultdict(list)
    section = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith(("#", ";")):
            assert not line.endswith("\\"), "this reader takes each line for itself"
            key, equals, value = line.partition("=")
            assert equals, line
            found[section, key].append(value)
    return found


def seconds(unit: Unit, section: str, key: str) -> float:
    [value] = unit[section, key]
    return float(value)


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert shutil.which("systemd-analyze"), "bin/test installs it; apt-get install systemd"
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)


def test_systemd_finds_no_fault_with_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    # The programs of a checkout: those of an instance are not there.
    text = UNIT.read_text().replace(PROGRAM, str(COMMAND)).replace(OPERATOR, str(ROOT / "bin" / "domain-events"))
    copy.write_text(text)
    done = analyze("verify", copy)
    told = done.stdout + done.stderr
    # It tells of the other units of this machine as well, and then fails because of them.
    assert "domain-events" not in told
    assert done.returncode == 0 or told, f"systemd-analyze ended with {done.returncode} and no word"


def test_systemd_finds_the_service_well_protected() -> None:
    done = analyze("security", "--offline=yes", "--no-pager", UNIT)
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd-analyze security --offline is there from systemd 250 on")
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done
    assert float(found[1]) <= EXPOSURE, done.stdout


def test_the_unit_reads_what_the_documentation_promises(unit: Unit) -> None:
    assert unit["Service", "ExecStart"] == [PROGRAM], "the modules come from the environment file"
    assert unit["Service", "EnvironmentFile"] == ["/etc/domain-events/%i.env"]
    assert unit["Service", "LoadCredential"] == [
        "broker:/etc/domain-events/%i.broker",
        "http-token:/etc/domain-events/%i.http-token",
    ]
    assert unit["Service", "SetCredential"] == [r"broker:\n", r"http-token:\n"], "or a missing file fails the start"


def test_only_the_supervisor_is_told_to_stop_and_only_it_speaks_for_the_service(unit: Unit) -> None:
    assert unit["Service", "Type"] == ["notify"]
    assert unit["Service", "NotifyAccess"] == ["main"]
    assert unit["Service", "KillMode"] == ["mixed"]


def test_a_reload_waits_for_the_result_and_leaves_the_patience_to_systemd(unit: Unit) -> None:
    assert unit["Service", "ExecReload"] == [f"{OPERATOR} reload --wait --timeout 0"]
    assert unit["Service", "RuntimeDirectory"] == ["domain-events/%i"], "the socket is there, for both commands"


def test_the_name_of_the_directory_is_known_where_it_is_a_link(unit: Unit) -> None:
    assert unit["Service", "WorkingDirectory"] == [FOLDER]
    assert unit["Service", "Environment"] == [f"PWD={FOLDER}"]


def test_the_watchdog_waits_longer_than_the_loop_ever_does(unit: Unit) -> None:
    asking_a_loader = 2.0
    last_lines_of_a_child = 0.1
    assert seconds(unit, "Service", "WatchdogSec") >= 10 * (asking_a_loader + last_lines_of_a_child)


def test_systemd_gives_a_stop_more_time_than_the_supervisor_takes(unit: Unit) -> None:
    ending = 3.0  # at most, after the last SIGKILL: for the children to vanish, and for their last log lines
    margin = 5.0
    longest = Options().grace + Options().kill_after + ending
    assert seconds(unit, "Service", "TimeoutStopSec") >= longest + margin


def test_systemd_gives_a_start_more_time_than_a_child_has_to_boot(unit: Unit) -> None:
    importing = 30.0
    longest = Options().boot_timeout + Options().kill_after
    assert seconds(unit, "Service", "TimeoutStartSec") >= longest + importing


def test_what_a_restart_cannot_help_is_not_restarted(unit: Unit) -> None:
    assert unit["Service", "Restart"] == ["on-failure"]
    [codes] = unit["Service", "RestartPreventExitStatus"]
    assert {int(code) for code in codes.split()} == {MasterExit.USAGE, MasterExit.CONFIGURATION}


def test_failing_at_once_ends_but_giving_up_now_and_then_is_restarted_for_ever(unit: Unit) -> None:
    burst = seconds(unit, "Unit", "StartLimitBurst")
    interval = seconds(unit, "Unit", "StartLimitIntervalSec")
    pause = seconds(unit, "Service", "RestartSec")
    assert burst * pause < interval
    assert burst * (pause + Options().give_up_after) > interval


def test_the_variables_on_the_page_about_deploying_exist() -> None:
    page = (ROOT / "docs" / "deploying.md").read_text()
    named = set(re.findall(r"DOMAIN_EVENTS_[A-Z_]+", page))
    known = {flag.variable for flags in GROUPS.values() for flag in flags if flag.twin} | {"DOMAIN_EVENTS_MODULES"}
    assert named
    assert named <= known


VENV = "home = {home}\ninclude-system-site-packages = false\n"
SCRIPT = """#!{python}
import sys
from domain_events.cli.supervisor import main
sys.exit(main())
"""


def release(folder: Path, version: str) -> Path:
    """A virtual environment as pip leaves it, with an application in it."""
    where = folder / f"release-{version}"
    packages = where / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "all.pth").write_text("\n".join([str(ROOT), *(path for path in sys.path if "site-packages" in path)]))
    base = Path(sys.executable).resolve()
    (where / "pyvenv.cfg").write_text(VENV.format(home=base.parent))
    (where / "bin").mkdir()
    python = where / "bin" / "python"
    python.symlink_to(base)
    script = where / "bin" / "domain-events-supervisor"
    script.write_text(SCRIPT.format(python=python))
    script.chmod(0o755)
    return where


def test_a_reload_after_a_deploy_runs_the_interpreter_and_the_code_of_the_new_release(
    deployed: Deployed, tmp_path: Path
) -> None:
    say = "import sys\nlogging.getLogger('app').warning('%s, by %s', __file__, sys.prefix)\nreceive('one')\n"
    current = tmp_path / "current"
    for version in ("1", "2"):
        deployed.app.folder = release(tmp_path, version)
        deployed.app.write(version, say)
    current.symlink_to("release-1")
    deployed.env["PWD"] = str(current)  # as the unit does
    master = deployed.start(children=1, command=[str(current / "bin" / "domain-events-supervisor"), "app"], cwd=current)
    assert f"{tmp_path}/release-1/app.py, by {tmp_path}/release-1" in master.handle.output()
    new = tmp_path / "new"
    new.symlink_to("release-2")
    new.replace(current)
    master.handle.send(signal.SIGHUP)
    master.wait_lines("reload_ok")
    assert f"{tmp_path}/release-2/app.py, by {tmp_path}/release-2" in master.handle.output()
    assert master.stop() == 0
