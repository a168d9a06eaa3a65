"""Options and failure reports of the whole test suite."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from ncfast.observe.log import logger
from ncfast.observe.log.limiter import EventLimiter

# Examples are counted, not timed: on a busy machine any of them may take long.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--direct",
        action="store_true",
        help="only tests of traffic, without hub and agent: shows that the tests themselves are sound",
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Lines of an earlier test are no flood that thins those of this one."""
    logger._state.limiter = EventLimiter(time.monotonic)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Keep each phase's report on its item, and put the logs of its processes under a failure."""
    report = yield
    setattr(item, f"report_{report.when}", report)
    if report.failed:
        for topology in getattr(item, "topologies", []):
            report.sections.append(("logs of hub and agents", topology.logs()))
    return report
