"""Lines of the log as OTLP log records, for an OpenTelemetry Collector. Nothing of OpenTelemetry is loaded before the
first is sent."""

from ncfast.observe.otlp.outlet import RESULTS, Outlet, begin, close, follow, results
from ncfast.observe.otlp.wish import Wish

__all__ = ["RESULTS", "Outlet", "Wish", "begin", "close", "follow", "results"]
