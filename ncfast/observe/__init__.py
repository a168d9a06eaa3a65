"""What operators see: log events, counters, metrics, readiness, the status page, the watchdog."""
