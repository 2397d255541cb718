"""SVG plots of what was measured: bars for peers side by side, lines where a number grows.

python -m benchmarks.speed.plots DIR
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import matplotlib as mpl

from benchmarks.speed.results import Measured, Spread, read
from benchmarks.speed.tables import OURS, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

mpl.use("Agg")
import matplotlib.pyplot as plt  # after the choice of a backend that needs no display

STYLE = {
    "svg.hashsalt": "domain-events",  # else each run names its clip paths anew
    "svg.fonttype": "none",  # text stays text: small, and can be searched
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    # On white, for a page may be dark and the text of an image does not follow it.
    "savefig.facecolor": "white",
}
OUR_COLOUR, OTHER_COLOUR = "#c0392b", "#7f8c8d"


@dataclass(frozen=True, slots=True)
class Bars:
    """Peers side by side in one case, the best on top."""

    file: str
    title: str
    scenario: str
    case: str
    value: str
    is_cost: bool = False
    """Less is better."""
    is_logarithmic: bool = False
    """Where some are a hundred times others."""


@dataclass(frozen=True, slots=True)
class Lines:
    """A line for each peer over the number in the name of the case."""

    file: str
    title: str
    scenario: str
    case: str
    """Regular expression of the whole name; its group is the number."""
    value: str
    x: str
    is_logarithmic: bool = False


Plot = Bars | Lines


PLOTS: tuple[Plot, ...] = (
    Bars("consume", "Consume, classic queue, one process", "consume", "classic", "events_per_second"),
    Bars("consume-quorum", "Consume, quorum queue, one process", "consume", "quorum", "events_per_second"),
    Lines(
        "prefetch",
        "Consume, classic queue, by prefetch",
        "consume",
        r"classic, prefetch (\d+)",
        "events_per_second",
        "prefetch",
        is_logarithmic=True,
    ),
    Bars(
        "publish-one", "Publish one by one, each confirmed", "publish one by one", "confirmed", "p50_ms", is_cost=True
    ),
    Bars("publish-many", "Publish many, confirms pipelined", "publish many", "pipelined", "events_per_second"),
    Bars(
        "latency", "From sending to the handler", "latency", "200 events/s", "p50_ms", is_cost=True, is_logarithmic=True
    ),
    Bars("retries", "200 events that fail once, again after 0.5 s", "retries", "burst of 200", "events_per_second"),
    Bars("lateness", "How late retries are, 20 events/s", "retries", "20 events/s", "late_p99_ms", is_cost=True),
    Bars("memory-of-one", "An idle receiver, all processes", "memory", "1 receiver", "pss_mib", is_cost=True),
    Lines("memory", "Idle receivers, all processes", "memory", r"(\d+) receivers?", "pss_mib", "receivers"),
    Bars("start", "From the start of the process to the first event", "start", "one event", "start_ms", is_cost=True),
    Bars("heavy", "A handler that takes 200 µs of CPU", "heavy handler", "200 µs", "of_bound_percent"),
    Lines(
        "scaling",
        "Receivers at once, all together",
        "scaling",
        r"(\d+) receivers?",
        "events_per_second",
        "receivers",
    ),
    Lines(
        "length",
        "Consuming at the head of a queue, by its length",
        "growth",
        r"queue of (\d+)",
        "events_per_second",
        "events in the queue",
        is_logarithmic=True,
    ),
)


def draw(folder: Path, plots: Iterable[Plot] = PLOTS) -> list[Path]:
    """One SVG for each of `plots` that there are results for, into `folder`; returns the files."""
    measured = read(folder)
    files = []
    with mpl.rc_context(STYLE):
        for plot in plots:
            chosen = [each for each in measured if each.scenario == plot.scenario and each.spread(plot.value)]
            match plot:
                case Bars():
                    figure = _bars(plot, [each for each in chosen if each.case == plot.case])
                case Lines():
                    figure = _lines(plot, chosen)
                case _:
                    assert_never(plot)
            if figure is None:
                continue
            file = folder / f"{plot.file}.svg"
            # No date: the same results give the same file.
            figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
            plt.close(figure)
            files.append(file)
    return files


def _bars(plot: Bars, measured: Sequence[Measured]) -> Figure | None:
    if not measured:
        return None
    spreads = {each.peer: spread for each in measured if (spread := each.spread(plot.value))}
    peers = sorted(spreads, key=lambda peer: spreads[peer].median, reverse=not plot.is_cost)
    medians = [spreads[peer].median for peer in peers]
    figure, axes = plt.subplots(figsize=(7, 0.8 + 0.28 * len(peers)))
    axes.barh(
        peers,
        medians,
        xerr=_errors([spreads[peer] for peer in peers]),
        color=[OUR_COLOUR if peer == OURS else OTHER_COLOUR for peer in peers],
        error_kw={"ecolor": "#2c3e50", "elinewidth": 1, "capsize": 2},
    )
    axes.invert_yaxis()
    if plot.is_logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.set_xlim(left=0)
    _write_on(axes, plot.title, label(plot.value))
    return figure


def _lines(plot: Lines, measured: Sequence[Measured]) -> Figure | None:
    points: dict[str, list[tuple[float, Spread]]] = {}
    for each in measured:
        spread, found = each.spread(plot.value), re.fullmatch(plot.case, each.case)
        if spread and found:
            points.setdefault(each.peer, []).append((float(found[1]), spread))
    # Who has been measured at one place only has no line.
    points = {peer: line for peer, line in points.items() if len(line) > 1} or points
    if not points:
        return None
    figure, axes = plt.subplots(figsize=(7, 3.4))
    for peer, line in points.items():
        line.sort(key=lambda point: point[0])
        axes.errorbar(
            [x for x, _ in line],
            [spread.median for _, spread in line],
            yerr=_errors([spread for _, spread in line]),
            label=peer,
            marker="o",
            markersize=3,
            capsize=2,
            **({"color": OUR_COLOUR, "linewidth": 2} if peer == OURS else {"linewidth": 1}),
        )
    if plot.is_logarithmic:
        axes.set_xscale("log")
    axes.set_xticks(sorted({x for line in points.values() for x, _ in line}))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_ylabel(label(plot.value))
    if len(points) > 1:
        axes.legend(frameon=False)
    _write_on(axes, plot.title, plot.x)
    return figure


def _errors(spreads: Sequence[Spread]) -> list[list[float]]:
    """From the median down to the least and up to the most, as matplotlib wants it."""
    return [[s.median - s.least for s in spreads], [s.most - s.median for s in spreads]]


def _write_on(axes: Axes, title: str, x: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel(x)
