"""The successor's side of an upgrade: this process is the hub that another has been, and takes over what is there.

`ncfast.hub.giving` has the order. Here: the listening sockets are inherited, and bound before anything is said; edge
and admin edge accept at once, the mesh when the predecessor has left it (`mesh`), listeners when no agent is left
there (`listen`). A parcel is acknowledged before anything is done with it. If the predecessor goes before the end,
all that it had not passed has ended with it, and everything is opened at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from ncfast.core.messages import Hello, HelloAck, Sought, Vouch
from ncfast.hub.awaited import Awaited
from ncfast.hub.passing import Handed
from ncfast.hub.session import AgentSession
from ncfast.net.channel import Message
from ncfast.net.handover import NoHeritage
from ncfast.net.parcel import Parcel, unpacked
from ncfast.observe import log
from ncfast.registry import Lock

if TYPE_CHECKING:
    from ncfast.net.channel import Channel

_log = log.get("upgrade")

SLICE = 8  # clients put together in one turn of the loop, about 0.4 ms


@dataclass(frozen=True, slots=True)
class Heritage:
    """What a successor must know to be the same hub."""

    replica_id: str
    instance: bytes
    number: int  # above those of all cids that the predecessor gives out
    registry: dict[str, Any]
    locks: list[Lock]
    departed: list[tuple[str | None, str, float]]

    @classmethod
    def read(cls, said: dict[str, Any]) -> Self:
        """As `Giving` says it. Raises NoHeritage."""
        try:
            return cls(
                said["replica_id"],
                bytes.fromhex(said["instance"]),
                said["number"],
                said["registry"],
                [Lock(**one) for one in said["locks"]],
                [(tenant, connector, at) for tenant, connector, at in said["departed"]],
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise NoHeritage(f"the predecessor does not say who it is: {exc}") from None


class Taking:
    """One hand-over. `passed` counts the clients that have come."""

    role = "taking"

    def __init__(self, hub: Handed, heritage: Heritage) -> None:
        self._hub = hub
        self._ground = hub.ground
        self._net = hub.net
        self._channel: Channel | None = None
        self._awaited = Awaited(hub.ground, heritage.number)
        # and not worked with yet; behind the clients of a message its number
        self._heard: deque[Message | Parcel | int] = deque()
        self._working = self._over = self._cut = False
        self._meshed = self._listening = False
        self.passed = 0
        self.left = {"flows": 0, "agents": len(heritage.registry.get("agents", ())), "sockets": 0}
        self.longest = 0.0  # pause of a flow, seconds
        self.begun_at = hub.net.clock()
        self._ground.taking = self
        self._adopted = hub.registry.adopt(heritage.registry)
        hub.cluster.inherit()
        for kind in (Hello, HelloAck, Vouch, Sought):  # 5 ms each, that flows without a way would wait for
            kind.model_rebuild()

    def snapshot(self) -> dict[str, Any]:
        return {
            "role": self.role,
            "seconds": round(self._net.clock() - self.begun_at, 3),
            "passed": self.passed,
            "longest_pause_sec": round(self.longest, 6),
            "left": self.left,
        }

    def take_over(self, channel: Channel) -> None:
        """All is bound: the predecessor may begin."""
        self._channel = channel
        channel.on_message, channel.on_closed = self._hear, self._lose
        channel.send("serving", {})

    # what the predecessor says

    def _hear(self, message: Message) -> None:
        """What has come is ours at once, and is worked with in order, a little in each turn of the loop: flows that
        have come before are to go on meanwhile."""
        if message.kind == "flows":
            assert self._channel is not None
            self._channel.send("taken", {"number": message.body["number"]})
            self._heard.extend(unpacked(message.body["heads"], message.payload, message.fds))
            self._heard.append(message.body["number"])
        else:
            message.close()
            self._heard.append(message)
        if not self._working:
            self._working = True
            self._net.call_soon(self._work)

    def _work(self) -> None:
        for _ in range(min(SLICE, len(self._heard))):
            one = self._heard.popleft()
            try:
                if isinstance(one, Parcel):
                    self.passed += 1
                    self._hub.passing.put(one, passed=True)
                elif isinstance(one, int):
                    assert self._channel is not None
                    self._channel.send("placed", {"number": one})
                else:
                    self._handle(one.kind, one.body, one.payload)
            except Exception:
                _log.exception("handover_defect")
        if self._heard:
            self._net.call_soon(self._work)
            return
        self._working = False
        if self._cut and not self._over:
            self._end("cut")

    def _handle(self, kind: str, body: dict[str, Any], payload: bytes) -> None:
        match kind:
            case "left":
                self.left = body
            case "complete":
                self._awaited.settle(body["agent"])
            case "gone":
                self._release(body["agent"], body["epoch"])
            case "mesh":
                self._ground.context.closed.take(payload)
                self._join()
            case "listen":
                self._listen()
            case "over":
                assert self._channel is not None
                self._channel.send("done", {})
                self._end("done")

    def _lose(self, reason: str) -> None:
        if self._over or any(isinstance(one, Message) and one.kind == "over" for one in self._heard):
            return
        _log.error("upgrade_cut", reason=reason, detail="the predecessor has gone with what it had not passed")
        self._cut = True
        if not self._working:
            self._end("cut")

    def _release(self, agent: str, epoch: int) -> None:
        if self._hub.sessions.current(agent) is None:
            self._net.spawn(self._hub.registry.release(agent, epoch), "release")

    def _join(self) -> None:
        if not self._meshed:
            self._meshed = True
            self._net.spawn(self._hub.join_mesh(), "join-mesh")

    def _listen(self) -> None:
        if not self._listening:
            self._listening = True
            for listener in self._hub.listeners.values():
                listener.go_on()

    def _end(self, result: str) -> None:
        self._over = True
        self._join()
        self._listen()
        self._ground.taking = None
        self._awaited.over()
        for entry in self._adopted:  # whose tunnel has ended with the predecessor
            self._release(entry.key, entry.epoch)
        self._ground.stats.handovers[result] += 1
        _log.info(
            "upgrade_done",
            result=result,
            passed=self.passed,
            longest_pause_sec=round(self.longest, 6),
            duration_sec=round(self._net.clock() - self.begun_at, 3),
        )

    # what happens here

    def granted(self, session: AgentSession) -> None:
        """An agent has claimed here."""
        assert self._channel is not None
        self._channel.send("claimed", {"agent": session.key, "epoch": session.epoch, "alone": session.alone})

    def asked(self, cid: bytes, epoch: int) -> None:
        """The flow's agent has claimed at another hub, which the predecessor does not hear, and goes on there."""
        assert self._channel is not None
        self._channel.send("asked", {"cid": cid.hex(), "epoch": epoch})

    def resumed(self, pause: float) -> None:
        """A flow that has come goes on, after so many seconds."""
        self.longest = max(self.longest, pause)
