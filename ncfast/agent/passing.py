"""What of a flow passes from one process of an agent to the next: taken off its socket here, put under it there."""

from __future__ import annotations

import socket
from typing import Protocol

from ncfast.agent.ground import Ground
from ncfast.agent.info import AgentInfo
from ncfast.agent.services import Services
from ncfast.agent.tunnels import Tunnels
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow
from ncfast.core.handover import export, restore
from ncfast.core.record import FlowRecord
from ncfast.net.parcel import Parcel
from ncfast.net.seam import Net, keep_alive
from ncfast.net.socket import SocketEnd, SocketState


class Agent(Protocol):
    """What is handed over, as both sides need it (`ncfast.agent.agent`)."""

    ground: Ground
    net: Net
    services: Services
    tunnels: Tunnels


class Passing:
    """Of one agent."""

    def __init__(self, ground: Ground, services: Services) -> None:
        self._ground = ground
        self._services = services

    def off(self, flow: Flow[AgentInfo]) -> Parcel | None:
        """Takes off a flow whose target is connected, or whose last bytes are owed. It is nobody's here from now on,
        and not counted as closed. None if its connection is over, which ends it here in a moment."""
        info, end = flow.info, flow.sink
        state = None
        if isinstance(end, SocketEnd) and (state := end.detach()) is None:
            return None
        record = export(flow).pack()
        head = {
            "connector": info.connector,
            "since": info.since,
            "resumes": info.resumes,
            "handovers": info.handovers,
        }
        if state is None:
            return Parcel(head, record, b"", None)
        self._ground.net.gone()
        return Parcel(head | {"eof": [state.eof_in, state.eof_out]}, record, state.unsent, state.sock)

    def put(self, parcel: Parcel, *, passed: bool) -> Flow[AgentInfo]:
        """Puts a flow under its socket again, without a way; `passed`: it was another process's. Raises ValueError,
        KeyError or TypeError for what is no flow; its socket is closed then."""
        head, ground = parcel.head, self._ground
        try:
            info = AgentInfo(head["connector"], head["since"])
            info.resumes = head["resumes"]
            info.handovers = head["handovers"] + passed
            record = FlowRecord.read(parcel.record)
            info.lost_at = record.detached_at if passed else -1.0
            target = self._services.target(info.connector)  # None: the file has it no longer, and its flows go on
            share = ground.context.share if target is None else target.share
            flow: Flow[AgentInfo] = restore(ground.context, record, info, share)
        except BaseException:
            parcel.close()
            raise
        if parcel.sock is None:
            return flow
        sock = parcel.sock if isinstance(parcel.sock, socket.socket) else ground.net.inherited(parcel.sock.detach())
        keep_alive(sock)
        ground.net.opened()
        end = SocketEnd(ground.context, self, ground.net.call_later, Reason.TARGET_RESET, Reason.TARGET_LOST)
        end.inherit(flow, SocketState(sock, parcel.unsent, *head["eof"]))
        ground.net.adopt_end(sock, end)
        return flow

    def socket_ready(self, end: SocketEnd) -> None:
        """Not called: an end that goes on was ready before."""

    def socket_gone(self, end: SocketEnd) -> None:
        self._ground.net.gone()
