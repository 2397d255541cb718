"""The tables of the benchmarks say what was measured, and those of docs/performance.md are made, not written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import page, tables, targets
from benchmarks.speed.results import RESULTS, read


def store(folder: Path, *lines: dict[str, Any]) -> Path:
    (folder / RESULTS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def line(peer: str, number: int, *, case: str = "classic", **values: float) -> dict[str, Any]:
    return {"scenario": "consume", "case": case, "peer": peer, "round": number, "values": values}


def cells(text: str, peer: str) -> list[str]:
    found = next(row for row in text.splitlines() if f"| {peer} |" in row)
    return [cell.strip() for cell in found.split("|")[1:-1]]


def test_a_row_has_median_least_and_most_of_the_rounds(tmp_path: Path) -> None:
    rounds = [line("dramatiq", number, events_per_second=rate) for number, rate in enumerate((900, 1100, 1000), 1)]
    assert "1000 (900 .. 1100)" in cells(tables.write(store(tmp_path, *rounds)), "dramatiq")


def test_the_ratio_is_the_median_of_those_within_a_round(tmp_path: Path) -> None:
    """The machine was slow in two of them: the medians over all rounds would say that ours has 10 times as much."""
    store(
        tmp_path,
        *(line("C, single acks", number, events_per_second=rate) for number, rate in enumerate((1000, 100, 100), 1)),
        *(line("domain-events", number, events_per_second=rate) for number, rate in enumerate((2000, 200, 1000), 1)),
    )
    assert cells(tables.render(read(tmp_path)), "**domain-events**")[-1] == "2.00"


def test_a_round_that_failed_is_told_and_counts_for_nothing(tmp_path: Path) -> None:
    failed = {"scenario": "consume", "case": "classic", "peer": "kombu", "round": 2, "error": "it went away"}
    text = tables.render(read(store(tmp_path, line("kombu", 1, events_per_second=50), failed)))
    assert "50.0" in cells(text, "kombu")
    assert "* classic, kombu: it went away" in text


def test_cases_with_other_numbers_have_a_table_of_their_own(tmp_path: Path) -> None:
    store(tmp_path, line("kombu", 1, p50_ms=1.5), line("kombu", 1, case="quorum", events_per_second=50))
    text = tables.render(read(tmp_path))
    assert len(re.findall(r"(?m)^\| case ", text)) == 2
    assert "p50, ms" in text


def test_what_is_no_result_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text(json.dumps(line("kombu", 1, p50_ms=1)) + '\n{"scenario": "consume"}\n')
    with pytest.raises(ValueError, match=r"results\.jsonl:2"):
        read(tmp_path)


def test_a_target_says_whether_it_is_met(tmp_path: Path) -> None:
    store(tmp_path, line("domain-events", 1, client_cpu_us=31.0, events_per_second=100))
    said = targets.render(tmp_path)
    assert "client, µs/event <= 30: 31.00 MISSED" in said
    assert "memory, each further receiver: PSS, MiB <= 8: not measured" in said


def test_the_tables_of_the_page_are_those_of_the_stored_results() -> None:
    text = page.PAGE.read_text()
    assert page.with_tables(text, page.STORED) == text


def test_a_page_without_a_place_for_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the page has no"):
        page.with_tables("# Speed\n", store(tmp_path, line("kombu", 1, p50_ms=1)))


def test_the_page_shows_every_plot_that_is_stored() -> None:
    shown = set(re.findall(r"\]\(performance/([\w-]+\.svg)\)", page.PAGE.read_text()))
    assert shown == {path.name for path in page.STORED.glob("*.svg")}
