"""The numbers of receivers and senders for Prometheus. Needs prometheus_client: the extra `metrics`."""

try:
    import prometheus_client  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "prometheus_client is not installed: install it, or domain-events with the extra 'metrics'", name=missing.name
    ) from missing

from domain_events.metrics.observer import Metrics
from domain_events.metrics.report import Depth, exposition

__all__ = ["Depth", "Metrics", "exposition"]
