"""Receivers whose spans go into a file, in batches: after an hour, or when they are asked for.

TEST_PROVIDER tells where the provider is made: once in the master, or in each child.
"""

import os

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from domain_events import DomainEvent, Receiver, Retry, Sender, child_started, send_domain_event
from domain_events.opentelemetry import instrument
from tests.spans import FileExporter

PREFIX = os.environ["TEST_PREFIX"]

receiver = Receiver()
instrument()


def set_provider() -> None:
    provider = TracerProvider()
    exporter = FileExporter(os.environ["TEST_SPANS"])
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000))
    trace.set_tracer_provider(provider)


if os.environ["TEST_PROVIDER"] == "child":
    child_started(set_provider)
else:
    set_provider()


@receiver.handles(f"{PREFIX}first", f"{PREFIX}first.asked", max_retries=1, processes=2)
def first(event: DomainEvent) -> None:
    if not event.retries:
        raise Retry(0.2)
    send_domain_event(f"{PREFIX}second.asked", {"pid": os.getpid()})


@receiver.handles(f"{PREFIX}second", f"{PREFIX}second.asked", concurrency=4)
async def second(event: DomainEvent) -> None:
    await Sender().send_async(f"{PREFIX}done", event.data)
