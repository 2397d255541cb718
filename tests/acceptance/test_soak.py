"""Faults of all kinds at random for half a minute: no event is lost. Longer: `python -m benchmarks.soak --help`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.soak.report import lost, text
from benchmarks.soak.run import Options, soak

pytestmark = pytest.mark.owns_broker  # it starts one, and kills it


def test_no_event_is_lost_whatever_is_killed_and_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(seconds=20.0, seed=4, rate=60.0, pace=0.4, recovery=2.0)
    report = soak(options, tmp_path, print)
    with capsys.disabled():
        print(f"\nsoak: {list(text(report))[-1]}")
    assert not list(lost(report))
    assert not report.problems, report.findings.tracebacks
    assert {fault.kind for fault in report.faults} >= {"node killed", "child killed", "sender killed"}
