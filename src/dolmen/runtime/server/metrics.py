"""The metrics behind ``/metrics``, in a registry of their own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class ServerMetrics:
    """The metrics of a server. Labels are names of models and of routes, so that nobody outside can add to them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = self._counter("requests", "Requests that were answered", "model", "route", "status")
        self.seconds = self._histogram(
            "request_seconds", "From the head of a request to its answer", SECONDS, "model", "route"
        )
        self.inputs = self._counter("inputs", "Inputs that were computed", "model", "outcome")
        self.batches = self._histogram("batch_inputs", "Inputs that were computed together", SIZES, "model")
        self.batch_seconds = self._histogram("batch_seconds", "Time that a batch took", SECONDS, "model")
        self.waiting = self._gauge("queue_inputs", "Inputs that wait", "model")
        self.active = self._gauge("active_requests", "Requests that are being answered")
        self.held = self._gauge("held_bytes", "Bytes of all bodies that are held")
        self.sessions = self._gauge("sessions", "WebSocket sessions", "model")
        self.reloads = self._counter("reloads", "Models that were to be loaded again", "model", "outcome")

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"dolmen_{name}", about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"dolmen_{name}", about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"dolmen_{name}", about, labels, registry=self.registry, buckets=buckets)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)
