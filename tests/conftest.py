"""Options and failure reports of the whole test suite."""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from support.peer import Peer

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


@pytest.fixture(scope="session", autouse=os.environ.get("NCFAST_DEBUG") != "1")
def this_process_stays_as_it_is() -> Iterator[None]:
    """Commands that a test runs in this very process do not forbid it, for good, to let a child leave a core."""
    with pytest.MonkeyPatch.context() as patch:
        for command in ("hub", "agent"):
            patch.setattr(f"ncfast.cli.{command}.forbid_core_dumps", lambda: None)
        yield


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """The scripted service."""
    service = Peer(tmp_path_factory.mktemp("peer"))
    yield service
    service.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Keep each phase's report on its item, and put the logs of its processes under a failure."""
    report = yield
    setattr(item, f"report_{report.when}", report)
    if report.failed:
        for topology in getattr(item, "topologies", []):
            report.sections.append(("logs of hub and agents", topology.logs()))
    return report


@pytest.fixture(scope="session", autouse=os.environ.get("NCFAST_DEBUG") == "1")
def nothing_compiled_lives_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """`make test-debug`: when all tests have passed, nothing that the Cython modules made is left. A reference too many
    keeps its object on the collector's list for ever, although no object leads to it."""
    from ncfast._frames import Chunk, SegmentPool
    from ncfast.agent.connection import Connection, Connections
    from ncfast.agent.info import AgentInfo
    from ncfast.core.context import FlowContext
    from ncfast.core.ends import Path, Sink, Source
    from ncfast.core.queues import Carrier
    from ncfast.core.relay import Relay
    from ncfast.hub.choice import Choice
    from ncfast.hub.entrance import Entrance, Place
    from ncfast.hub.info import ClientInfo
    from ncfast.hub.opens import Opens
    from ncfast.net.carrier import ReceiveBuffer
    from ncfast.net.stream import Stream
    from ncfast.net.transport import Poller

    yield
    if request.session.testsfailed:
        return  # tracebacks hold on to what their tests had
    gc.collect()
    core = (Chunk, SegmentPool, FlowContext, Sink, Path, Source, Carrier, Relay, ReceiveBuffer)
    kinds = (*core, Stream, Poller, Choice, Entrance, Place, ClientInfo, Opens, AgentInfo, Connection, Connections)
    alive = Counter(type(one).__name__ for one in gc.get_objects() if issubclass(type(one), kinds))
    assert not alive
