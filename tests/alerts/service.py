"""Faults that clients, sites and their operators meet."""

from __future__ import annotations

import datetime
import signal
import threading
from collections.abc import Iterator
from contextlib import closing

from support.cluster import AGENT
from support.ncfast_process import merged

from ncfast.auth import mint

from .fault import fault
from .stage import Stage


@fault(NcfastHubDown=("no answer from",))
def hub_killed(stage: Stage) -> Iterator[None]:
    """A hub is killed (SIGKILL)."""
    _, _, third = stage.settle()
    stage.cluster.kill(third)
    yield
    stage.cluster.start(third)


@fault(NcfastNotServing=("not_serving",))
def start_without_answer(stage: Stage) -> Iterator[None]:
    """A hub whose `redis_timeout_sec` is 10 is started while Redis is frozen."""
    _, _, third = stage.settle()
    cluster, hub = stage.cluster, stage.cluster.hubs[stage.settle()[2]]
    assert cluster.redis is not None
    cluster.stop(third)
    cluster.redis.freeze()
    hub.write_config(merged(hub.config, {"ha": {"redis_timeout_sec": 10}}))
    starting = threading.Thread(target=cluster.start, args=(third,))
    starting.start()
    yield
    cluster.redis.thaw()
    starting.join()
    hub.write_config(hub.config)
    cluster.stop(third)
    cluster.start(third)


@fault(
    NcfastFlowsDetached=("flows_detached",),
    NcfastListenerWithoutAgent=("agent_disconnected", "connection_lost"),
    NcfastClientsRefused=("opens_refused", "hold_timeout"),
)
def site_down(stage: Stage) -> Iterator[None]:
    """The agent is killed while a client has a flow, and others come."""
    owner, _, third = stage.settle()
    with closing(stage.talk(owner)), closing(stage.talk(third)):
        stage.cluster.agent.program.kill()
        with stage.again(lambda: stage.refused(third)):
            yield
        stage.cluster.agent.start()


@fault(NcfastFlowsLost=("flow_closed", "agent_restarted"))
def agent_restarted(stage: Stage) -> Iterator[None]:
    """The agent is killed while a client has a flow, and started again at once."""
    _, _, third = stage.settle()
    with closing(stage.talk(third)) as client:
        stage.cluster.agent.program.kill()
        stage.cluster.agent.start()
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            pass
        yield


@fault(NcfastClientsTurnedAway=("accept_shed", "listener_cap"))
def too_many_clients(stage: Stage) -> Iterator[None]:
    """A listener that takes two clients (`max_connections`) is asked by a third, again and again."""
    _, _, third = stage.settle()
    cap = [{**one, "max_connections": 2} for one in stage.cluster.hubs[third].config["listeners"]]
    with (
        stage.reloaded(third, {"listeners": cap}),
        closing(stage.talk(third)),
        closing(stage.talk(third)),
        stage.again(lambda: stage.refused(third)),
    ):
        yield


@fault(NcfastAgentFlapping=("superseded", "tunnels_closed_total"))
def one_id_twice(stage: Stage) -> Iterator[None]:
    """A second agent process runs under the id of the first."""
    stage.settle()
    token = mint(stage.cluster.key_file.read_bytes(), AGENT, connectors=["peer"])
    with stage.site(AGENT, token):
        yield


@fault(NcfastTokensRefused=("auth_failed", "expired", "http_401"))
def token_ended(stage: Stage) -> Iterator[None]:
    """An agent comes again and again with a token that has ended."""
    stage.settle()
    key = stage.cluster.key_file.read_bytes()
    hour_ago = datetime.datetime.now().timestamp() - 3600
    with stage.site("site-2", mint(key, "site-2", connectors=["peer"], ttl=60, now=hour_ago), wait=False):
        yield


@fault(NcfastTokenEndsSoon=("TOKEN",))
def token_ends_soon(stage: Stage) -> Iterator[None]:
    """An agent's token has five minutes left, and no other comes."""
    stage.settle()
    key = stage.cluster.key_file.read_bytes()
    with stage.site("site-2", mint(key, "site-2", connectors=["peer"], ttl=300)) as agent:
        yield
        mark = agent.log.mark()
        agent.token_file.write_text(mint(key, "site-2", connectors=["peer"]))
        agent.log.wait("token_refreshed", after=mark)


@fault(NcfastCertificateEndsSoon=("nowconnect_certificate_expires_seconds", "ends within 14 days"))
def certificate_ends_soon(stage: Stage) -> Iterator[None]:
    """A hub's mesh certificate has a day left."""
    _, _, third = stage.settle()
    hub = stage.cluster.hubs[third]
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    mark = hub.log.mark()
    stage.cluster.certify(third, stage.cluster.authority, not_after=tomorrow)
    hub.log.wait("mesh_files_reloaded", after=mark)
    yield
    stage.cluster.certify(third, stage.cluster.authority)


@fault(NcfastUpgradeFailed=("upgrade_failed", "handovers"))
def upgrade_to_a_wrong_file(stage: Stage) -> Iterator[None]:
    """A hub is upgraded whose file has a word for a number by now; it goes on as before."""
    _, _, third = stage.settle()
    hub = stage.cluster.hubs[third]
    hub.expected_errors |= {"upgrade_failed"}
    mark = hub.log.mark()
    hub.write_config(merged(hub.config, {"flow": {"window_max": "much"}}))
    hub.program.signal(signal.SIGUSR2)
    hub.log.wait("upgrade_failed", after=mark)
    hub.write_config(hub.config)
    yield


@fault(NcfastConfigRefused=("config_refused", "config_reloads_total"))
def wrong_file(stage: Stage) -> Iterator[None]:
    """A file with a word for a number is reloaded."""
    _, _, third = stage.settle()
    hub = stage.cluster.hubs[third]
    hub.expected_errors |= {"config_refused"}
    assert not hub.reload(merged(hub.config, {"flow": {"window_max": "much"}}))
    yield
    assert hub.reload(hub.config)
