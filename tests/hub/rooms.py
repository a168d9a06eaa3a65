"""The rooms of a hub on a virtual seam: real links, flows, mesh and registry; what is beyond the wires is the test's.

`Rooms` puts them together as `ncfast.hub.hub` does, without the doors (`hub.doors` has them, on a real loop). Time
stands still until a test moves it.
"""

from __future__ import annotations

from typing import Any

from core.virtual import Socket, Time
from mesh.hubs import SECRET

from hub.far import PROCESS, WINDOW, Agent, OtherHub
from hub.seam import Gate, VirtualNet
from ncfast.auth import Identity
from ncfast.config.hub import HubConfig, Listener
from ncfast.core.errors import Reason
from ncfast.core.timeouts import Timeouts
from ncfast.hub.claims import Claims
from ncfast.hub.client import ClientFlow, ClientInfo
from ncfast.hub.cluster import Cluster
from ncfast.hub.ground import Ground
from ncfast.hub.level import Level
from ncfast.hub.lockout import Lockout
from ncfast.hub.pending import PendingOpens
from ncfast.hub.relays import Relays
from ncfast.hub.resuming import Resuming
from ncfast.hub.routing import Router
from ncfast.hub.sessions import Sessions
from ncfast.hub.steering import Steering
from ncfast.hub.tokens import Tokens
from ncfast.hub.ways import Ways
from ncfast.mesh.manager import Mesh
from ncfast.net.socket import SocketEnd
from ncfast.observe.readiness import State
from ncfast.registry import AgentEntry, Replica
from ncfast.registry.memory import MemoryRegistry

NOW = 1_800_000_000.0  # unix seconds at which a test begins


class SlowRegistry(MemoryRegistry):
    """Grants an epoch at once, and says so when `gate` opens."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.gate = Gate(open=True)

    async def claim_ownership(self, *arguments: Any, **named: Any) -> int:
        epoch = await super().claim_ownership(*arguments, **named)
        await self.gate
        return epoch


def identity(agent: str = "site", *connectors: str, tenant: str | None = None, ttl: float = 3600.0) -> Identity:
    """Of a token that allows these connectors, or any."""
    return Identity(agent, tenant, frozenset(connectors) or None, NOW + ttl, NOW)


def hub_config(mode: str = "off", without_redis: str = "last_view", **sections: Any) -> HubConfig:
    """A hub's, with parts of sections changed."""
    ha = {
        "enabled": True,
        "mode": mode,
        "replica_id": "hub-a",
        "without_redis": without_redis,
        "mesh": {"listen": "127.0.0.1:0", "require_mtls": False, "secret_file": SECRET},
    }
    base: dict[str, Any] = {"listeners": [], "auth": {"jwt": {"key_file": "unused"}}}
    return HubConfig.model_validate(base | ({"ha": ha} if mode != "off" else {}) | sections)


def listener(name: str = "in", connector: str = "ldap", **settings: Any) -> Listener:
    return Listener.model_validate({"name": name, "bind": "127.0.0.1:0", "connector": connector} | settings)


class Client:
    """A client's socket, its far side in the test's hand, and its flow."""

    def __init__(self, rooms: Rooms, config: Listener, *, run: bool = True) -> None:
        ground, flow = rooms.ground, rooms.ground.config.flow
        timeouts = Timeouts(flow.open_timeout_sec, flow.grace_sec, flow.half_close_sec, flow.stall_sec)
        self.info = ClientInfo(config, timeouts, "192.0.2.1", 4000, ground.clock(), ground.stats.listener(config.name))
        self.socket = Socket(rooms.net.turns)
        end = SocketEnd(ground.context, self, rooms.net.call_later, Reason.CLIENT_RESET, Reason.CLIENT_LOST)
        self.socket.protocol = end
        end.connection_made(self.socket)
        rooms.router.client_ready(end, self.info)
        self.rooms = rooms
        (self.flow,) = [one for one in [*ground.flows.values(), *rooms.over] if one.info is self.info]
        if run:
            rooms.run()

    @property
    def reason(self) -> Reason | None:
        """What its flow has ended with."""
        (reason,) = self.rooms.reasons.get(self.flow.cid, [None])
        return reason

    def look_after(self) -> None:
        """The hub looks at the flow's timers."""
        self.rooms.router.look_after(self.flow, self.rooms.ground.clock())
        self.rooms.run()

    def socket_ready(self, end: SocketEnd) -> None:
        pass

    def socket_gone(self, end: SocketEnd) -> None:
        pass


class Rooms:
    """A hub without doors. `over` are its flows that have ended, `reasons` says how."""

    def __init__(self, mode: str = "off", *, net: Any = None, **sections: Any) -> None:
        self.net = net or VirtualNet()
        self.wall = Time()
        self.wall.now = NOW
        ground = self.ground = Ground(hub_config(mode, **sections), self.net, self.wall)
        ground.context.owner = self
        ground.readiness.move(State.SERVING)
        ground.started_at -= 60.0  # nobody is awaited because the hub is new
        replica = Replica(ground.replica_id, ground.instance.hex())
        self.registry = SlowRegistry(replica, self.net, ground.stats, ground.wall_clock)
        self.pending = PendingOpens(ground.config.limits.pending_opens_per_agent)
        self.ways = Ways(ground, self.registry)
        self.sessions = Sessions()
        self.steering = Steering(ground, self.sessions, self.registry, self.ways, self.pending)
        self.router = Router(ground, self.sessions, self.registry, self.ways, self.pending, self.steering)
        self.resuming = Resuming(ground, self.sessions, self.registry, self.steering)
        self.relays = Relays(ground, self.sessions, self.ways, self.pending)
        self.level = Level(ground, self.sessions, self.registry, self.ways)
        self.claims = Claims(
            ground,
            self.sessions,
            self.registry,
            self.steering,
            self.router,
            self.resuming,
            self.relays,
            self.level,
        )
        self.cluster = Cluster(ground, self.registry, self.ways, self.steering, self.router, self.resuming, self.relays)
        self.lockout = Lockout(ground, self.sessions, self.registry, self.steering, self.relays)
        self.tokens: Tokens = None  # type: ignore[assignment]  # those that need it set it
        self.registry.on_agents = self.router.changed
        self.registry.on_fenced = self.claims.fenced
        self.over: list[ClientFlow] = []
        self.reasons: dict[bytes, list[Reason]] = {}
        self.replicas = [self.registry.replica]
        if mode != "off" and net is None:
            self.ways.mesh = Mesh(ground, self.cluster)  # that listens nowhere and dials nobody

    # the flows' owner, as the hub is

    def flow_refused(self, flow: ClientFlow, reason: Reason) -> bool:
        return self.router.refused(flow, reason)

    def flow_resumed(self, flow: ClientFlow) -> None:
        flow.info.resumes += 1

    def flow_closed(self, flow: ClientFlow, reason: Reason) -> None:
        self.reasons.setdefault(flow.cid, []).append(reason)
        self.over.append(self.ground.flows.pop(flow.cid))
        self.steering.closed(flow)

    # time

    def run(self) -> None:
        """Turns until nothing moves."""
        while self.net.turns.run():
            pass

    def wait(self, seconds: float) -> None:
        self.run()
        self.net.clock.now += seconds
        self.run()

    # who comes

    def client(self, config: Listener | None = None, *, run: bool = True) -> Client:
        """A client whose socket is there; its flow may be over already. Without `run` this turn of the loop is not
        over."""
        return Client(self, config or listener(), run=run)

    def agent(self, name: str = "site", *connectors: str, **options: Any) -> Agent:
        """An agent that has claimed, and serves the connectors, ldap if none is named."""
        return Agent(self, identity(name), **options).claim(*(connectors or ("ldap",)))

    def hub(self, name: str = "hub-b", **options: Any) -> OtherHub:
        return OtherHub(self, name, **options)

    def known(self, name: str, instance: bytes, mesh_url: str = "") -> None:
        """The registry knows a hub."""
        others = [one for one in self.replicas if one.replica_id != name]
        self.replicas = [*others, Replica(name, instance.hex(), mesh_url)]
        self.registry.view.set_replicas([(one, 0, 0) for one in self.replicas])

    def elsewhere(
        self, agent: str = "site", owner: str = "hub-b", epoch: int = 1, instance: str = PROCESS, **fields: Any
    ) -> AgentEntry:
        """The registry says that another hub owns the agent."""
        known = self.registry.view.replica(owner)
        fields = {"connectors": frozenset({"ldap"}), "window": WINDOW} | fields
        fields["owner_instance"] = known.instance if known is not None else ""
        entry = AgentEntry(f"/{agent}", owner, epoch, instance, **fields)
        self.registry.view.put(entry)
        self.router.changed(frozenset({entry.key}))
        self.run()
        return entry
