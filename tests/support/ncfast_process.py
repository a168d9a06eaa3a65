"""Hub and agent as an operator runs them: ``python -m ncfast``, a YAML file, JSON logs on standard error."""

from __future__ import annotations

import copy
import http.client
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from support.eventlog import EventLog
from support.peer import Address
from support.process import Program
from support.until import PATIENCE, wait_until

ACCESS = "flow_closed"  # the event of the access-log line

# Timers short enough that a test sees them fire; every other key keeps the default that operators get.
FAST_HUB: dict[str, Any] = {
    # tests ask /readyz again and again, and cut tunnels as fast
    "edge": {"bind": "127.0.0.1:0", "handshakes_per_source_per_sec": 10_000, "tunnels_per_agent_per_sec": 0},
    "admin": {"bind": "127.0.0.1:0"},
    "tunnel": {"ping_interval_sec": 0.5, "ping_timeout_sec": 2},
    "drain": {"delay_sec": 0},
    "logging": {"format": "json", "mask": "none"},
}
FAST_AGENT: dict[str, Any] = {
    "tunnel": {"ping_interval_sec": 0.5, "ping_timeout_sec": 2},
    "reconnect": {"min_sec": 0.05, "max_sec": 0.5},
    "logging": {"format": "json", "mask": "none"},
}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` laid on top, section by section; a value of None removes the key."""
    result = copy.deepcopy(dict(base))
    for key, value in over.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def ncfast(*arguments: str | Path) -> list[str]:
    """The command line of the product."""
    return [sys.executable, "-m", "ncfast", *map(str, arguments)]


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)


def check_log(log: EventLog, expected_errors: frozenset[str] = frozenset()) -> None:
    """Fail on lines that are not JSON, and on unexpected errors: level error is for our own defects."""
    defects = [e for e in log.events() if e.get("level") == "error" and e["event"] not in expected_errors]
    assert not defects, defects[:5]
    assert not log.stray, log.stray[:20]


class Hub:
    """One hub process and its configuration file; ``prefix`` are words before its command, as ``nsenter`` is."""

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any],
        *,
        name: str = "hub",
        max_files: int | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.config = dict(config)
        self.expected_errors: frozenset[str] = frozenset()  # events at level error that the test provokes
        self.unlogged_flows = 0  # whose access-log line the test itself has switched off
        self.config_path = directory / f"{name}.yaml"
        self.write_config(self.config)
        self._directory = directory
        self.max_files, self.prefix = max_files, list(prefix)  # of the next start
        self._begin = 0  # where the present process's log begins
        self.start()

    def start(self) -> None:
        """Run the process, again after it has ended; its log goes on in the same file."""
        argv = [*self.prefix, *ncfast("hub", "--config", self.config_path)]
        self.program = Program(self.name, argv, self._directory, max_files=self.max_files)
        self.log = EventLog(self.program.err_path, self.program.exit_code)
        self._begin = self.log.mark()
        self.ready = self.log.wait("hub_ready", after=self._begin)

    def pin(self) -> None:
        """Write the ports that the kernel chose into the file, so that the next start has the same."""
        self.config["edge"]["bind"] = self.ready["edge"]
        self.config["admin"]["bind"] = self.ready["admin"]
        for listener in self.config["listeners"]:
            listener["bind"] = self.ready["listeners"][listener["name"]]
        self.write_config(self.config)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Replace the configuration file; SIGHUP makes the hub read it."""
        self.config_path.write_text(yaml.safe_dump(dict(config), sort_keys=False))

    def reload(self, config: Mapping[str, Any]) -> bool:
        """Give the hub a new file by SIGHUP; whether it took it."""
        before = self.reloads()
        self.write_config(config)
        self.program.signal(signal.SIGHUP)
        after = wait_until(lambda: (now := self.reloads()) != before and now, "the hub's answer to SIGHUP")
        return after["ok"] > before["ok"]

    def reloads(self) -> dict[str, int]:
        """How many reloads were taken and refused."""
        counts = self.metric_by("nowconnect_config_reloads_total")
        return {result: int(counts.get((result,), 0)) for result in ("ok", "refused")}

    @property
    def edge(self) -> Address:
        return _address(self.ready["edge"])

    @property
    def admin(self) -> Address:
        return _address(self.ready["admin"])

    def listener(self, name: str) -> Address:
        """Where clients connect."""
        return _address(self.ready["listeners"][name])

    def get(self, path: str, *, admin: bool = False, method: str = "GET") -> tuple[int, bytes]:
        """Status and body of an HTTP request to the edge, or to the admin edge."""
        connection = http.client.HTTPConnection(*(self.admin if admin else self.edge), timeout=PATIENCE)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        """GET /status of the admin edge."""
        code, body = self.get("/status", admin=True)
        assert code == 200, (code, body)
        return json.loads(body)

    def metrics(self) -> list[Any]:
        """Metric families, read by Prometheus' own parser."""
        from prometheus_client.parser import text_string_to_metric_families

        code, body = self.get("/metrics", admin=True)
        assert code == 200, (code, body)
        return list(text_string_to_metric_families(body.decode()))

    def metric_by(self, sample_name: str) -> dict[tuple[str, ...], float]:
        """Samples of one name, keyed by their label values."""
        return {
            tuple(sample.labels.values()): sample.value
            for family in self.metrics()
            for sample in family.samples
            if sample.name == sample_name
        }

    def metric(self, sample_name: str) -> float:
        """The sum of one name's samples over all labels."""
        return sum(self.metric_by(sample_name).values())

    def wait_agents(self, count: int) -> None:
        """Until so many agents have tunnels."""
        wait_until(lambda: len(self.status()["agents"]) == count, f"{count} agents at the hub")

    def wait_idle(self) -> dict[str, Any]:
        """Until no flow is left; the status at that moment."""

        def idle() -> dict[str, Any] | None:
            status = self.status()
            flows = status["flows"]
            left = flows["active"] + flows["opening"] + flows["detached"] + flows["held"]
            return status if not left else None

        return wait_until(idle, lambda: f"no flow left at the hub: {self.status()['flows']}")

    def access_lines(self, **fields: Any) -> list[dict[str, Any]]:
        """The present process's access-log lines whose fields equal the given ones."""
        return self.log.events(ACCESS, after=self._begin, **fields)

    def check_conservation(self) -> None:
        """Every flow that was opened has been closed, for one named reason, with one access-log line, and every byte
        that was read is accounted for."""
        status = self.wait_idle()
        flows = status["flows"]
        closed = sum(flows["closed"].values())
        assert flows["opened"] == closed, flows
        assert status["memory"]["held_bytes"] == 0, status["memory"]
        read = status["bytes"]
        assert read["client_in"] == read["acknowledged"] + read["discarded"], read
        expected = closed - self.unlogged_flows
        wait_until(lambda: len(self.access_lines()) >= expected, f"{expected} access-log lines")
        lines = self.access_lines()
        assert len(lines) == expected, f"{len(lines)} access-log lines for {expected} flows"
        assert len({line["cid"] for line in lines}) == expected, "a flow has two access-log lines"
        by_reason = Counter(line["reason"] for line in lines)
        assert by_reason <= Counter(flows["closed"]), (by_reason, flows["closed"])

    def check_log(self) -> None:
        """Nothing but JSON lines, and no defect of ours among them."""
        check_log(self.log, self.expected_errors)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self.program.stop()


class Agent:
    """One agent process and its configuration file; ``prefix`` as for `Hub`."""

    flags: tuple[str, ...] = ()  # of its command line
    runs: type[Program] = Program

    def __init__(
        self,
        directory: Path,
        *,
        hubs: Iterable[str],
        agent_id: str,
        token: str,
        connectors: Mapping[str, Any],
        overrides: Mapping[str, Any],
        name: str = "agent",
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        wait: bool = True,
    ) -> None:
        self.agent_id = agent_id
        self.expected_errors: frozenset[str] = frozenset()  # events at level error that the test provokes
        self.token_file = directory / f"{name}.token"
        self.token_file.write_text(token)
        self.token_file.chmod(0o600)
        self._directory, self._name, self._env, self._prefix = directory, name, env, prefix
        self.config: dict[str, Any] = merged(
            {
                "hubs": list(hubs),
                "agent_id": agent_id,
                "token_file": str(self.token_file),
                "connectors": [
                    {"name": key, **value} if isinstance(value, Mapping) else {"name": key, "target": value}
                    for key, value in connectors.items()
                ],
                **FAST_AGENT,
            },
            overrides,
        )
        self.config_path = directory / f"{name}.yaml"
        self.start(wait=wait)

    def start(self, *, wait: bool = True) -> None:
        """Run the process, again after it has ended; its log goes on in the same file."""
        self.config_path.write_text(yaml.safe_dump(self.config, sort_keys=False))
        argv = [*self._prefix, *ncfast("agent", *self.flags, "--config", self.config_path)]
        self.program = self.runs(self._name, argv, self._directory, env=self._env)
        self.log = EventLog(self.program.err_path, self.program.exit_code)
        before = len(self.log.events("tunnel_up"))
        if wait:
            self.log.wait("tunnel_up", count=before + 1)

    def wait_tunnel(self, after: int) -> dict[str, Any]:
        """The first ``tunnel_up`` after a mark."""
        return self.log.wait("tunnel_up", after=after)

    def check_log(self) -> None:
        """Nothing but JSON lines, and no defect of ours among them."""
        check_log(self.log, self.expected_errors)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self.program.stop()
