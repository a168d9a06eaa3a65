"""A flow's socket is given up by one process and taken over by another, on real sockets of loopback: no byte is lost or
repeated in either direction, and ends are told once, wherever they were."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
from core.ends import Hub
from core.raw import Peer
from core.virtual import Time
from net.test_transport import KIB, arrived, noise, play, reset, under
from support.until import until

from ncfast._frames import FrameType
from ncfast.core.errors import Reason
from ncfast.core.handover import export, restore
from ncfast.core.record import FlowRecord
from ncfast.core.states import FlowState
from ncfast.net.socket import SocketEnd

CREDIT = 64 * KIB


class RealHub(Hub):
    """A hub whose clients are real."""

    def __init__(self, world):
        super().__init__(Time(), window=1 << 20, window_max=1 << 20)
        self.world = world
        self.client_ends = {}

    def end(self, cid):
        end = SocketEnd(self.context, self, self.world.net.call_later, Reason.CLIENT_RESET, Reason.CLIENT_LOST)
        self.client_ends[cid] = end
        return end

    def socket(self, flow, code):
        self.far, near = self.world.pair(send_buffer=16 * KIB)
        end = self.end(flow.cid)
        self.world.net.adopt_end(near, end)
        end.carry(flow)

    def give(self, cid):
        """The flow's record and what is under it; the descriptor has been through a Unix socket, and is closed here."""
        state = self.client_ends.pop(cid).detach()
        record = export(self.flows[cid]).pack()
        ours, theirs = socket.socketpair()
        with ours, theirs, state.sock:
            socket.send_fds(ours, [b"x"], [state.sock.fileno()])
            fds = socket.recv_fds(theirs, 1, 1)[1]
        return record, state._replace(sock=socket.socket(fileno=fds[0]))

    def take(self, record, state):
        flow = restore(self.context, FlowRecord.read(record), self)
        end = self.end(flow.cid)
        end.inherit(flow, state)
        self.world.net.adopt_end(state.sock, end)
        return flow


class Talk:
    """A client, `far`, at one hub and then at the next; its agent is the test."""

    def __init__(self, world):
        self.world = world
        self.hub = RealHub(world)
        self.peer = Peer(self.hub, CREDIT)
        self.flow = self.hub.connect()
        self.far = self.hub.far
        self.peer.send(FrameType.M_OPEN_ACK, self.flow, limit=CREDIT)
        self.sent = b""  # by the agent

    def answers(self, data):
        for at in range(0, len(data), 60_000):
            piece = data[at : at + 60_000]
            self.peer.send(FrameType.M_DATA, self.flow, seq=len(self.sent), limit=CREDIT, payload=piece)
            self.sent += piece
        self.peer.taken()

    def answers_end(self):
        self.peer.send(FrameType.M_FIN, self.flow, seq=len(self.sent), limit=CREDIT)

    def pass_on(self):
        """Both of the flow's processes have no link to the agent for a moment; then the agent has asked for it."""
        state = self.flow.state
        record, socket_state = self.hub.give(self.flow.cid)
        context = self.hub.context
        assert (context.live, context.windows, context.held) == (0, 0, 0) and not self.hub.reasons
        assert context.bytes_read == context.bytes_out + context.discarded
        self.hub = RealHub(self.world)
        self.flow = self.hub.take(record, socket_state)
        assert self.flow.state == state and self.end.flow is self.flow
        return socket_state

    def resume(self, ack=0, limit=CREDIT):
        self.peer = Peer(self.hub, CREDIT)
        self.peer.send(FrameType.M_RESUME, self.flow, ack=ack, limit=limit, payload=self.flow.secret)

    def heard(self):
        """What has come for the agent since it was last asked: bytes by their places, and whether the end has."""
        some = self.peer.taken()
        data = {frame.seq: frame.payload for frame in some if frame.type == FrameType.M_DATA}
        return data, any(frame.type == FrameType.M_FIN for frame in some)

    async def hears(self, start, wanted, end=False):
        """Until what the client has said from `start` on has come, and its end."""
        got, ended = {}, False

        def whole():
            nonlocal ended
            data, fin = self.heard()
            got.update(data)
            ended = ended or fin
            at = start
            while at in got:
                at += len(got[at])
            return at == start + len(wanted) and ended == end

        await until(whole, "all that the client has said")
        assert b"".join(got[at] for at in sorted(got)) == wanted

    @property
    def end(self):
        return self.hub.client_ends[self.flow.cid]

    @property
    def waiting(self):
        return self.end.transport.get_write_buffer_size()


@pytest.mark.parametrize("ended", [False, True], ids=["goes-on", "its-end-is-owed"])
def test_what_the_kernel_has_not_taken_comes_along_and_the_end_behind_it(ended):
    async def scenario(world):
        talk = Talk(world)
        answer = noise(1 << 20)
        while not talk.waiting:
            talk.answers(answer[len(talk.sent) : len(talk.sent) + 40_000])
        if ended:
            talk.answers_end()
        backlog = talk.flow.backlog
        state = talk.pass_on()
        assert state.unsent and state.eof_out == ended and not state.eof_in
        assert talk.flow.backlog == (talk.waiting if backlog else 0)
        assert await world.read(talk.far, len(talk.sent)) == talk.sent == answer[: len(talk.sent)]
        talk.resume()
        if not ended:
            talk.answers(b"and more")
            assert await world.read(talk.far, 8) == b"and more"
            talk.answers_end()
        assert await world.read(talk.far, 1) == b""
        await world.send(talk.far, b"still here")
        await talk.hears(0, b"still here")

    play(scenario)


def test_an_end_that_was_written_is_not_written_again():
    async def scenario(world):
        talk = Talk(world)
        talk.answers(b"all")
        talk.answers_end()
        assert await world.read(talk.far, 4) == b"all"
        state = talk.pass_on()
        assert state.eof_out and not state.unsent
        talk.resume()
        await world.send(talk.far, b"late")
        talk.far.shutdown(socket.SHUT_WR)
        await talk.hears(0, b"late", end=True)
        talk.peer.send(FrameType.M_ACK, talk.flow, ack=5, limit=CREDIT)
        await until(lambda: talk.hub.gone == 1, "the socket is closed")
        assert talk.hub.reasons[talk.flow.cid] == [Reason.CLOSED]
        assert talk.far.recv(1) == b"", "closed by a reset"

    play(scenario)


def test_an_end_that_was_read_is_not_told_again():
    async def scenario(world):
        talk = Talk(world)
        await world.send(talk.far, b"ask")
        talk.far.shutdown(socket.SHUT_WR)
        await talk.hears(0, b"ask", end=True)
        state = talk.pass_on()
        assert state.eof_in and talk.flow.state == FlowState.HALF_LOCAL
        talk.resume(ack=4)
        talk.answers(b"answer")
        talk.answers_end()
        assert await world.read(talk.far, 7) == b"answer"
        await until(lambda: talk.hub.reasons, "the flow is over")
        assert talk.hub.reasons[talk.flow.cid] == [Reason.CLOSED]

    play(scenario)


def test_bytes_that_nobody_has_read_are_read_by_the_next_behind_those_that_are_kept():
    async def scenario(world):
        talk = Talk(world)
        said = noise(200 * KIB)
        await world.send(talk.far, said[: 100 * KIB])
        await until(lambda: not talk.end.transport.is_reading(), "as much as there is credit for")
        talk.heard()
        talk.peer.send(FrameType.M_ACK, talk.flow, ack=10_000, limit=CREDIT)
        sock = under(talk.end)
        await until(lambda: arrived(sock, 30 * KIB), "the rest waits in the kernel")
        more = asyncio.ensure_future(world.send(talk.far, said[100 * KIB :]))
        talk.pass_on()
        assert talk.flow.unsent_bytes == talk.flow.snd_nxt - 10_000 > CREDIT - 14_000
        talk.resume(ack=10_000, limit=1 << 20)
        await more
        talk.far.shutdown(socket.SHUT_WR)
        await talk.hears(10_000, said[10_000:], end=True)

    play(scenario)


def test_a_reset_that_the_kernel_knows_of_is_told_by_the_next():
    async def scenario(world):
        talk = Talk(world)
        await world.send(talk.far, noise(CREDIT))
        await until(lambda: not talk.end.transport.is_reading(), "as much as there is credit for")
        sock = under(talk.end)
        reset(talk.far)
        await until(lambda: sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x07", "TCP_CLOSE")
        talk.pass_on()
        said = noise(talk.flow.snd_nxt)
        talk.resume()
        await talk.hears(0, said)
        talk.peer.send(FrameType.M_ACK, talk.flow, ack=len(said), limit=1 << 20)
        await until(lambda: talk.hub.reasons, "the flow is over")
        assert talk.hub.reasons[talk.flow.cid] == [Reason.CLIENT_RESET]

    play(scenario)


def test_a_connection_that_is_over_stays_until_that_is_told():
    async def scenario(world):
        talk = Talk(world)
        end, flow = talk.end, talk.flow
        end.transport.abort()
        assert end.detach() is None and end.flow is flow
        await until(lambda: talk.hub.reasons, "the flow is over")
        assert end.detach() is None and talk.hub.gone == 1

    play(scenario)


def test_a_socket_that_cannot_be_had_ends_its_flow():
    async def scenario(world):
        talk = Talk(world)
        record, state = talk.hub.give(talk.flow.cid)
        state.sock.close()
        with open(os.devnull) as nothing:  # what no epoll set takes
            hub = RealHub(world)
            flow = hub.take(record, state._replace(sock=Descriptor(os.dup(nothing.fileno()))))
        assert flow.closed and hub.reasons == {flow.cid: [Reason.CLIENT_RESET]} and hub.gone == 1
        assert (hub.context.live, hub.context.windows, hub.context.held) == (0, 0, 0)

    play(scenario)


class Descriptor:
    def __init__(self, fd):
        self.detach = lambda: fd
