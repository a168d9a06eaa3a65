"""What a planted bug is, and the files of the product that they go into."""

from __future__ import annotations

from dataclasses import dataclass

# in ncfast/
BUDGET = "core/budget.pyx"
FLOW, QUEUES, LINK, RELAY = "core/flow.pyx", "core/queues.pyx", "core/link.pyx", "core/relay.pyx"
SOCKET, STREAM = "net/socket.pyx", "net/stream.pyx"
REGISTRY, MESH, ROUTE = "registry/redis/registry.py", "mesh/manager.py", "mesh/route.py"
SESSION, SESSIONS, CLAIMS = "hub/session.py", "hub/sessions.py", "hub/claims.py"
ROUTING, STEERING, RESUMING, PENDING, HOLD = (
    "hub/routing.py",
    "hub/steering.py",
    "hub/resuming.py",
    "hub/pending.py",
    "hub/hold.py",
)
RELAYS, CLUSTER, LEVEL = "hub/relays.py", "hub/cluster.py", "hub/level.py"
TUNNELS, TUNNEL = "agent/tunnels.py", "agent/tunnel.py"
HANDOVER, ACCEPTOR, BINDING = "core/handover.pyx", "net/acceptor.py", "net/binding.py"
GIVING, TAKING, WAYS, LISTENER = "hub/giving.py", "hub/taking.py", "hub/ways.py", "hub/listener.py"
AGENT_GIVING, AGENT_TAKING = "agent/giving.py", "agent/taking.py"


@dataclass(frozen=True, slots=True)
class Plant:
    """A bug. `edits` are (file, text, text instead); `ON` in the latter says that the plant is active."""

    name: str
    edits: tuple[tuple[str, str, str], ...]


def plant(name: str, *edits: tuple[str, str, str]) -> Plant:
    return Plant(name, edits)
