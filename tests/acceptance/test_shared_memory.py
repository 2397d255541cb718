"""What children share with their master. Nothing here is timed or weighed: benchmarks/memory.py does that."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.deploying import Connected
from tests.waiting import wait_until

APP = """
import os, sys
from pathlib import Path

from domain_events import Receiver, Retry, before_fork

receiver = Receiver()
known = set()


@before_fork
def look():
    known.update(sys.modules)


def note(event):
    path = Path(os.environ["TEST_MODULES"], event.data["name"] + str(event.retries))
    path.with_suffix(".new").write_text(" ".join(sorted(set(sys.modules) - known)))
    path.with_suffix(".new").rename(path)
    if event.retries == 0:
        raise Retry(0)


async def note_later(event):
    note(event)


for name, handler, options in [
    ("plain", note, {}), ("threads", note, {"threads": 2}), ("coroutines", note_later, {}),
]:
    receiver.register(handler, os.environ["TEST_PREFIX"] + name, [os.environ["TEST_PREFIX"] + name], max_retries=1,
                      **options)
"""


def test_a_child_imports_nothing_that_its_master_could_have_imported_for_all(
    connected: Connected, tmp_path: Path
) -> None:
    """Neither before its first event nor to retry one: that would be memory of its own, and a later start."""
    names = ("plain", "threads", "coroutines")
    connected.clean(*names)
    connected.app.write_text(APP)
    connected.env["TEST_MODULES"] = str(tmp_path)
    connected.start(children=len(names))
    for name in names:
        connected.send(name, 1, name=name)
    notes = [tmp_path / f"{name}{retries}" for name in names for retries in (0, 1)]
    wait_until(lambda: all(note.exists() for note in notes), what="each is handled twice")
    assert {note.name: note.read_text() for note in notes} == {note.name: "" for note in notes}
    assert connected.stop() == 0
