"""Spans as tests read them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from domain_events import tracing
from domain_events.observers import everybody
from domain_events.opentelemetry import instrument
from tests.growing import whole_objects
from tests.waiting import wait_until


class Traces:
    """What was exported, by the names of spans."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """In the order of their ends."""
        return self._exporter.get_finished_spans()

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.spans]

    def all(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        [span] = self.all(name)
        return span

    def wait(self, name: str, n: int = 1) -> list[ReadableSpan]:
        wait_until(lambda: len(self.all(name)) >= n, what=f"{n} spans {name!r}")
        return self.all(name)


@contextlib.contextmanager
def traced(sampler: Sampler | None = None) -> Iterator[Traces]:
    """This process is instrumented until the end of the block."""
    traces = Traces(sampler)
    instrument(traces.provider)
    try:
        yield traces
    finally:
        uninstrument()
        traces.provider.shutdown()


def uninstrument() -> None:
    everybody[:] = [each for each in everybody if each is not tracing.tracer]
    tracing.trace_with(None)


class FileExporter(SpanExporter):
    """A line of JSON for each span, appended at once: for spans of several processes."""

    def __init__(self, path: str) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with open(self._path, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(json.loads(span.to_json())) + "\n" for span in spans))
        return SpanExportResult.SUCCESS


def read_spans(path: Path) -> list[dict[str, Any]]:
    return whole_objects(path) if path.exists() else []
