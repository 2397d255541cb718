"""docs/performance.md gets the tables of a run, docs/performance/ its results and plots.

    python -m benchmarks.speed.page DIR

Nothing else of the page is touched: the tables stand between two comments, `BEGIN` and `END`. A test compares them with
the results that are stored beside the plots, so that no figure is written by hand.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks.speed import tables
from benchmarks.speed.results import MACHINE, RESULTS, read

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "performance.md"
STORED = ROOT / "docs" / "performance"
BEGIN = "<!-- tables: begin (python -m benchmarks.speed.page DIR) -->\n"
END = "<!-- tables: end -->\n"


def with_tables(page: str, folder: Path) -> str:
    """The page with the machine and the tables of the results in `folder`. Raises ValueError without the comments."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}\n{tables.render_machine(folder)}\n\n{tables.render(read(folder))}\n{END}{after}"


def main(folder: Path) -> None:
    from benchmarks.speed import plots  # here, for the test of the page has no matplotlib

    STORED.mkdir(exist_ok=True)
    for name in (RESULTS, MACHINE):
        shutil.copyfile(folder / name, STORED / name)
    for plot in STORED.glob("*.svg"):
        plot.unlink()
    plots.draw(STORED)
    PAGE.write_text(with_tables(PAGE.read_text(), STORED))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
