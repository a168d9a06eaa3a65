"""An agent that sends what it likes through a hub that relays, amid an honest origin: the link between the hubs stands,
what it carries are whole frames of the agent's own flows, and nothing is left when all is over."""

import struct
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports():
    from core.raw import message
    from core.relayed import Between, OwnerSession, block, cid, data, of_flow

    from ncfast._frames import HEADER_SIZE, FrameType
    from ncfast.core.errors import Reason

HEADER = struct.Struct("!BBHIQ16sQQQ")
assert HEADER.size == HEADER_SIZE
FLOWS = [cid(1), cid(2), cid(3), b"owner..." + bytes(8), bytes(16)]
TYPES = [
    int(one) for one in FrameType if one.name.startswith("M_") and one != FrameType.M_OPEN
]  # what does not go to the handlers
TYPES += [FrameType.M_DATA, FrameType.M_RESUME, FrameType.PING, FrameType.PONG, 200]
SERVED = {
    name: getattr(OwnerSession, f"_on_frame__{name}", None)
    for name in ("hello", "hello_ack", "open", "auth", "announce", "goaway")
}
ENDS = (Reason.PROTOCOL_ERROR, Reason.MESSAGE_TOO_BIG, Reason.FLOOD, Reason.STALLED, Reason.KEEPALIVE_TIMEOUT)


@atheris.instrument_func
def frame(source: atheris.FuzzedDataProvider) -> bytes:
    """Nearly right, or not at all."""
    if source.ConsumeIntInRange(0, 15) == 0:
        return source.ConsumeBytes(source.ConsumeIntInRange(0, 200))
    type_ = source.PickValueInList(TYPES)
    payload = source.ConsumeBytes(source.ConsumeIntInRange(0, 40))
    if type_ == FrameType.M_DATA:
        payload *= source.ConsumeIntInRange(1, 900)
    elif type_ != FrameType.M_RESUME:
        payload = payload if source.ConsumeIntInRange(0, 40) == 0 else b""
    epoch = 1 if source.ConsumeIntInRange(0, 10) else source.ConsumeIntInRange(0, 3)
    numbers = [source.ConsumeUInt(8) >> source.ConsumeIntInRange(2, 63) for _ in range(3)]
    code = source.ConsumeIntInRange(0, 100) if type_ in (FrameType.M_RST, FrameType.M_DETACH) else 0
    return (
        HEADER.pack(type_, type_ > FrameType.MOVE, code, len(payload), epoch, source.PickValueInList(FLOWS), *numbers)
        + payload
    )


def serve(on: bool) -> None:
    """What is not the relay's business is ignored once the tunnel stands."""
    for name, method in SERVED.items():
        setattr(OwnerSession, f"_on_frame__{name}", method if on and method is not None else lambda *_: None)


@atheris.instrument_func
def one_input(given: bytes) -> None:
    source = atheris.FuzzedDataProvider(given)
    serve(True)
    rig = Between(raw=source.ConsumeBool(), queue_depth=source.ConsumeIntInRange(1, 40))
    for number in (1, 2, 3):
        rig.open(number)
    serve(False)
    arrived = []
    while source.remaining_bytes() and not rig.tunnel.link.closed:
        what = source.ConsumeIntInRange(0, 9)
        if what < 5:
            wire = b"".join(frame(source) for _ in range(source.ConsumeIntInRange(1, 5)))
            rig.feed(
                rig.tunnel.wire, message(wire), source.ConsumeIntInRange(1, 300) if source.ConsumeBool() else 1 << 30
            )
        elif what == 5:
            rig.from_origin(
                data(source.ConsumeIntInRange(1, 3), 0, source.ConsumeIntInRange(1, 3000)),
                of_flow(FrameType.M_ACK, 2, ack=1),
            )
        elif what == 6:
            block(rig.mesh, source.ConsumeBool())
        elif what == 7:
            block(rig.tunnel, source.ConsumeBool())
        elif what == 8:
            rig.tick(source.ConsumeIntInRange(0, 3) / 2)
        else:
            arrived += rig.to_origin()
            rig.to_agent()
        assert rig.owner.context.relayed == sum(link.relay_bytes + link.answer_bytes for link in rig.owner.links)
        assert rig.mesh.link.relay_frames <= rig.owner.queue_depth + 6
    assert all(reason in ENDS for reason in rig.tunnel.ended), rig.tunnel.ended
    for handler in (rig.mesh, rig.tunnel):
        block(handler, False)
    arrived += rig.to_origin()
    assert not rig.mesh.ended or rig.mesh.ended[0] in (Reason.STALLED, Reason.KEEPALIVE_TIMEOUT)
    assert all(one.cid in FLOWS or one.type in (FrameType.PING, FrameType.GOAWAY) for one in arrived)
    rig.tunnel.link.fail(Reason.GOING_AWAY)
    rig.mesh.link.fail(Reason.GOING_AWAY)
    assert rig.nothing_waits() and rig.owner.relays == {}


atheris.Setup(sys.argv, one_input)
atheris.Fuzz()
