"""What must add up once no client is left: flows, bytes, descriptors, and what the two ends say of each flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from support.until import wait_until

from .installation import Installation
from .ledger import Ledger, Logs
from .samples import look

SPARE_FILES = (
    4  # descriptors beyond those of an idle process of the beginning: one that looks, one that is being closed
)


def idle_files(site: Installation) -> dict[str, int]:
    """Descriptors of each process while there are no clients."""
    return {name: look(one.program.pid)["files"] for name, one in site.processes().items()}


def check(site: Installation, ledger: Ledger, logs: Logs, idle: dict[str, int]) -> dict[str, dict[str, float]]:
    """Everything that can be looked at from outside; then the orderly end, by which it must hold, too. The accounts of
    each hub."""
    _held(ledger, "the cluster is whole when the clients are gone", site.cluster.wait_settled)
    _held(ledger, "the accounts of flows, relays, epochs and logs", site.cluster.check_between)
    found = {}
    for name in site.cluster.names:
        _held(ledger, f"the metrics of {name}", lambda name=name: found.__setitem__(name, _balance(site, name)))
    _held(ledger, "descriptors of idle processes", lambda: _idle_again(site, idle))
    for problem in both_ends(logs.access(site.cluster.names), logs.access(a.agent_id for a in site.cluster.agents)):
        ledger.fail(problem)
    _held(ledger, "the orderly end", site.cluster.check)
    return found


def _held(ledger: Ledger, what: str, check: Callable[[], object]) -> None:
    try:
        check()
    except AssertionError as error:
        ledger.fail(f"{what}: {str(error)[:1000]}")


def _balance(site: Installation, name: str) -> dict[str, float]:
    hub = site.cluster.hubs[name]
    values = {sample.name: 0.0 for family in hub.metrics() for sample in family.samples}
    for family in hub.metrics():
        for sample in family.samples:
            values[sample.name] += sample.value
    names = {
        "opened": "flows_opened_total",
        "closed": "flows_closed_total",
        "active": "flows_active",
        "in": "client_in_bytes_total",
        "acknowledged": "acknowledged_bytes_total",
        "discarded": "discarded_bytes_total",
        "held": "memory_held_bytes",
        "out": "client_out_bytes_total",
        "relays unaccounted": "relays_unaccounted",
    }
    read = {word: values.get(f"nowconnect_{metric}", 0.0) for word, metric in names.items()}
    assert read["opened"] == read["closed"] + read["active"], read
    assert read["in"] == read["acknowledged"] + read["discarded"] + read["held"], read
    assert not read["held"] and not read["active"] and not read["relays unaccounted"], read
    return read


def _idle_again(site: Installation, idle: dict[str, int]) -> None:
    def over() -> dict[str, str]:
        return {
            name: f"{now} instead of {idle[name]}"
            for name, now in idle_files(site).items()
            if now > idle[name] + SPARE_FILES
        }

    wait_until(lambda: not over(), lambda: f"descriptors as at the beginning: {over()}")


def both_ends(hubs: list[dict[str, Any]], agents: list[dict[str, Any]]) -> Iterator[str]:
    """Flows of which the one end has read less than the other has received, or, if they ended well, not the same."""
    at_agent: dict[str, dict[str, Any]] = {}
    for line in agents:
        if line["cid"] in at_agent:
            yield f"an agent has closed a flow twice: {line}"
        at_agent[line["cid"]] = line
    for line in hubs:
        other = at_agent.get(line["cid"])
        if other is None:
            continue  # it was refused, or the agent was killed before it could write
        up, down = (line["bytes_in"], other["bytes_in"]), (other["bytes_out"], line["bytes_out"])
        well = line["reason"] == other["reason"] == "closed"
        if any(got > sent or (well and got != sent) for sent, got in (up, down)):
            yield f"the two ends of a flow do not agree: {line}, {other}"
