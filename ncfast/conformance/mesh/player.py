"""The scripted hub of the same cluster: its link, and flows that go over it."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import orjson

from ncfast._frames import FrameType, encode
from ncfast.conformance.broken import Broken
from ncfast.conformance.flow import Flow
from ncfast.conformance.hubs.player import ScriptedAgent
from ncfast.conformance.hubs.stage import LOOPBACK, kept_port
from ncfast.conformance.mesh.link import BareLink, Link, WebLink
from ncfast.conformance.mesh.referee import MeshReferee
from ncfast.conformance.player import WINDOW
from ncfast.conformance.scenario import Scenario
from ncfast.conformance.stage import AGENT, CONNECTOR, Places, reason_name
from ncfast.conformance.tunnel import Frame, Tunnel
from ncfast.core.errors import Reason, RemoteError
from ncfast.core.messages import VERSION, Sought, Vouch
from ncfast.core.opening import Opening
from ncfast.mesh.handshake import Hello, HelloAck, proof, proves

CLUSTER, HUB, US = "conformance", "hub-a", "hub-b"
MESH, EDGE = 2, 0  # doors
CLIENT = ("192.0.2.7", 50123, "192.0.2.1", 389)
F = FrameType
NUMBERED = (F.M_OPEN, F.M_OPEN_ACK, F.M_RESUME, F.M_RESUME_ACK)  # frames whose `seq` is a round trip


class ScriptedPeer(ScriptedAgent):
    """The verbs, each with its value and the whole step."""

    OPTIONAL = ()
    SCENARIOS = "mesh_scenarios.json"
    BROKEN = "11"
    _referee: MeshReferee

    def __init__(self, scenario: Scenario, directory: Path, patience: float) -> None:
        super().__init__(scenario, directory, patience)
        self._doors.append(kept_port())
        self._secret = secrets.token_hex(32).encode()
        self._secret_file = directory / "secret"
        self._own_instance = self._former_instance = secrets.token_bytes(8)
        self._hub_instance = ""
        self._opened = 0

    @staticmethod
    def _referees(flows: dict[bytes, Flow]) -> MeshReferee:
        return MeshReferee(flows)

    @property
    def places(self) -> Places:
        port = str(self._doors[2].getsockname()[1])
        more = {"mesh": f"{LOOPBACK}:{port}", "mesh_port": port, "cluster": CLUSTER, "replica_id": HUB}
        return {**super().places, **more, "secret_file": str(self._secret_file)}

    async def start(self) -> None:
        """Writes the mesh's secret, too."""
        await super().start()
        self._secret_file.touch(mode=0o600)
        self._secret_file.write_bytes(self._secret)

    # verbs: the link

    async def _do_link(self, reason: str, step: dict[str, Any]) -> None:
        """We dial the mesh, and the link stands, or is ended for this reason. `hello`: members that are otherwise.
        `first`: another frame than HELLO; `none`: none at all. `proof` wrong, `missing` in AUTH, or `none`: no AUTH.
        `restart`: we are another process from now on; `former`: the one before that."""
        if step.get("restart") == "former":
            self._own_instance, self._former_instance = self._former_instance, self._own_instance
        elif step.get("restart"):
            self._own_instance, self._former_instance = secrets.token_bytes(8), self._own_instance
        link = await self._dial_link()
        self._tunnels[step.get("on", "peer")] = self._tunnel = link
        self._reading.append(asyncio.create_task(link.run()))
        if "first" in step:
            if step["first"] != "none":
                link.frame(FrameType[step["first"]], payload=b"{}")
        else:
            await self._greet(link, step, expected=not reason)
        if reason:
            silent = [None] if "first" in step else []  # before HELLO nobody need be told why
            await self._do_ends([Reason[reason.upper()], *silent], step)
        else:
            await self._do_fence(2, step)

    @property
    def _place(self) -> str:
        """Where we dial."""
        return self.places["mesh"]

    async def _dial_link(self) -> Link:
        reader, writer = await asyncio.open_connection(sock=await self._connect(MESH))
        return BareLink(reader, writer, self._referee.judge)

    async def _greet(self, link: Link, step: dict[str, Any], *, expected: bool) -> None:
        body = {
            "version": VERSION,
            "cluster": CLUSTER,
            "replica_id": US,
            "instance": self._own_instance.hex(),
            "nonce": secrets.token_hex(32),
            "place": self._place,
            **step.get("hello", {}),
        }
        hello = Hello.model_construct(**body)
        link.frame(F.HELLO, payload=orjson.dumps(body))
        try:
            frame = await self._next(link, lambda one: one.type == F.HELLO_ACK)
        except Broken:
            if expected or link.broken is not None:
                raise
            return  # it is ended before
        try:
            ack: HelloAck = HelloAck.unpack(frame.payload)
        except RemoteError as exc:
            raise Broken("11.HELLO_ACK", exc.detail) from None
        if (ack.cluster, ack.replica_id) != (CLUSTER, HUB) or ack.url or ack.place or ack.channel:
            raise Broken("11.HELLO_ACK", "HELLO_ACK names another cluster or hub, or says what was dialled")
        if not proves(self._secret, "listener", hello, ack, ack.proof):
            raise Broken("11.4", "HELLO_ACK does not prove the secret")
        self._hub_instance = ack.instance
        if step.get("proof") != "none":
            right = proof(self._secret, "dialler", hello, ack)
            shown = secrets.token_hex(32) if step.get("proof") == "wrong" else right
            link.frame(F.AUTH, payload=orjson.dumps({} if step.get("proof") == "missing" else {"proof": shown}))

    # verbs: flows that the hub relays

    def _say(self, tunnel: Tunnel, type: FrameType, flow: Flow, step: dict[str, Any], **fields: Any) -> None:
        """On a link, under the owner's epoch; `newer`: so much above it."""
        if isinstance(tunnel, Link):
            fields.setdefault("epoch", self._tunnels["owner"].epoch + step.get("newer", 0))
        super()._say(tunnel, type, flow, step, **fields)

    async def _do_opens(self, connector: str, step: dict[str, Any]) -> None:
        """M_OPEN of a client of ours. `agent`: for which. `cid` foreign: not begun with our instance."""
        flow = self._flow(step)
        self._name(flow, secrets.token_bytes(8) if step.get("cid") == "foreign" else self._own_instance)
        opening = Opening(connector or CONNECTOR, "clients", flow.secret, US, CLIENT, step.get("agent", AGENT))
        self._say(self._on(step), F.M_OPEN, flow, step, limit=WINDOW, payload=opening.json())

    def _name(self, flow: Flow, instance: bytes) -> None:
        """A cid for a flow that is relayed."""
        self._opened += 1
        flow.cid = instance + self._opened.to_bytes(8, "big")
        self._flows[flow.cid] = flow
        self._referee.relayed.add(flow.cid)

    async def _do_opened_for(self, _: str, step: dict[str, Any]) -> None:
        """The agent gets that M_OPEN: the same flow, client and secret."""
        flow = self._flow(step)
        tunnel = self._on({"on": "owner", **step})
        frame = await self._next(tunnel, lambda one: one.type == F.M_OPEN and one.cid == flow.cid)
        said = Opening.unpack(frame.payload)
        if (said.secret, said.origin, said.client) != (flow.secret, US, CLIENT) or frame.limit != WINDOW:
            raise Broken(self._rule, "M_OPEN says another secret, origin, client or limit than ours")

    async def _do_relay(self, name: str, step: dict[str, Any]) -> None:
        """A frame of the flow is sent `from` one end, and comes out `to` the other as it was. `count`: bytes of
        M_DATA, which may come in parts."""
        type, flow = FrameType[name], self._flow(step)
        near, far = self._tunnels[step["from"]], self._tunnels[step["to"]]
        start, count = step.get("seq", 0), step.get("count", 0)
        fields: dict[str, Any] = {name: step.get(name, 0) for name in ("seq", "ack", "limit")}
        data = flow.ours.part(start, start + count) if type == F.M_DATA else b""
        payload = data or (flow.secret if type == F.M_RESUME else b"")
        code = {"code": Reason[step["code"].upper()]} if "code" in step else {}
        epoch = self._tunnels["owner"].epoch
        near.send(encode(type, epoch=epoch, cid=flow.cid, payload=payload, **fields, **code))
        while True:
            frame = await self._next(far, lambda one: one.type == type and one.cid == flow.cid)
            self._same(frame, fields, code.get("code", 0), epoch)
            if type != F.M_DATA:
                if frame.payload[: len(payload)] != payload:
                    raise Broken(self._rule, f"{name} comes with another payload")
                return
            if frame.payload != data[: len(frame.payload)]:
                raise Broken(self._rule, "M_DATA comes with other bytes")
            data = data[len(frame.payload) :]
            fields["seq"] += len(frame.payload)
            if not data:
                return

    def _same(self, frame: Frame, fields: dict[str, Any], code: int, epoch: int) -> None:
        seq = fields["seq"] if frame.type not in NUMBERED else frame.seq
        wanted = (code, epoch, seq, fields["ack"], fields["limit"])
        if (frame.code, frame.epoch, frame.seq, frame.ack, frame.limit) != wanted:
            raise Broken(self._rule, f"{frame.name} comes with other numbers than were sent")

    async def _do_seek(self, connector: str, step: dict[str, Any]) -> None:
        """M_RESUME from origin to owner: the secret, and behind it whom we seek."""
        flow = self._flow(step)
        if flow.cid not in self._referee.relayed:
            self._name(flow, self._own_instance)
        body = Sought(agent=step.get("agent", AGENT), connector=connector or CONNECTOR).pack()
        self._say(self._on(step), F.M_RESUME, flow, step, payload=flow.secret + body)

    async def _do_asked_alone(self, _: bool, step: dict[str, Any]) -> None:
        """The agent gets it, with the secret alone."""
        flow = self._flow(step)
        tunnel = self._on({"on": "owner", **step})
        frame = await self._next(tunnel, lambda one: one.type == F.M_RESUME and one.cid == flow.cid)
        if frame.payload != flow.secret:
            raise Broken(self._rule, "M_RESUME does not hold the secret alone")

    async def _do_vouched(self, agent: str, step: dict[str, Any]) -> None:
        """M_RESUME comes from owner to origin, as the agent has asked: the secret, and behind it who asks."""
        flow = self._flow(step)
        frame = await self._next(self._on(step), lambda one: one.type == F.M_RESUME and one.cid == flow.cid)
        try:
            vouch: Vouch = Vouch.unpack(frame.payload[len(flow.secret) :])
        except RemoteError as exc:
            raise Broken("10.28", exc.detail) from None
        said = (frame.payload[: len(flow.secret)], vouch.agent, vouch.tenant, vouch.instance)
        if said != (flow.secret, agent, None, self._instances[agent]):
            raise Broken(self._rule, "M_RESUME shows another secret, agent, tenant or instance")

    async def _do_vouch(self, agent: str, step: dict[str, Any]) -> None:
        """M_RESUME from owner to origin: the flow's agent is ours now. `secret`, `instance`: another. `over`: of a flow
        that the origin does not have."""
        flow = self._flow(step)
        if step.get("over"):
            self._name(flow, bytes.fromhex(self._hub_instance))
        instance = step.get("instance", self._instances.get(agent, "0" * 32))
        secret = bytes.fromhex(step["secret"]) if "secret" in step else flow.secret
        body = Vouch(agent=agent, instance=instance).pack()
        self._say(self._on(step), F.M_RESUME, flow, step, payload=secret + body)

    async def _do_newest(self, code: str, step: dict[str, Any]) -> None:
        """M_DETACH comes for this reason, with the owner's epoch as the newest."""
        flow = self._flow(step)
        frame = await self._next(self._on(step), lambda one: one.type == F.M_DETACH and one.cid == flow.cid)
        newest = self._tunnels["owner"].epoch
        if reason_name(frame.code) != code or frame.seq != newest:
            raise Broken(self._rule, f"M_DETACH says {reason_name(frame.code)} and {frame.seq}, not {code}, {newest}")


class WebSocketPeer(ScriptedPeer):
    """The same with links by /mesh at the edge, as behind an ingress."""

    @property
    def _place(self) -> str:
        return self.places["edge"]

    async def _dial_link(self) -> Link:
        streams = await asyncio.open_connection(sock=await self._connect(EDGE))
        link = WebLink(f"ws://{self._place}/mesh", *streams, self._referee.judge)
        await link.open()
        return link
