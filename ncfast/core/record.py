"""One end of a flow as a record, by which it passes from one process to the one that follows it.

The record says all that the end needs to go on by another way: both directions' numbers, what is kept for replay, what
came before the target was connected, ends and resets that are owed, how the window was tuned, and the timers. What
belongs to a path (what is in flight there, what was asked for, acknowledgements that wait) is not in it: a restored
flow has lost its path. Times are CLOCK_MONOTONIC, which is one for all processes of a machine.

    byte  size
    0     1     FORMAT
    1     4     CRC-32 of what stands between it and `early`
    5     167   the members up to `detached_at`, in their order, as `_HEAD` has them: whole numbers big-endian
    172   1     whether there is an `open_body`: the hub's end of the flow
    173   1     whether something is `sought`
    174   12    the lengths of `open_body`, `sought` and `early`
    186         `open_body`, `sought`, `early`, `kept`

The bytes on their way are under no sum: they are as many as the numbers say, and a Unix socket loses and turns none.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Self
from zlib import crc32

from ncfast._frames import CID_SIZE, SECRET_SIZE
from ncfast.core.states import FlowState

FORMAT = 1  # of what `pack` gives, and the only one that `read` takes

_LEAD = struct.Struct(">BI")
_HEAD = struct.Struct(f">{CID_SIZE}s{SECRET_SIZE}sB5?H13Q7d??3I")
_BEGIN = _LEAD.size + _HEAD.size
_MAX_OFFSET = 1 << 62  # stream offsets stay below it, as on the wire
_ENDED = (FlowState.OPENING_FIN, FlowState.HALF_LOCAL, FlowState.CLOSING)  # our direction


class FlowRecord(NamedTuple):
    """Members as `Flow` has them."""

    cid: bytes
    secret: bytes
    state: int
    fin_owed: bool
    fin_sent: bool
    fin_acked: bool
    fin_received: bool
    reset_owed: bool  # with `rst_code`, behind what is kept; such a flow has no socket any more
    rst_code: int
    epoch: int
    snd_nxt: int
    snd_una: int
    snd_max: int
    snd_limit: int
    rcv_nxt: int
    rcv_limit: int
    rcv_acked: int
    window: int
    tune_from: int
    gap_from: int
    seen: int
    seen_taken: int
    far_rtt: float
    tune_since: float
    gap_at: float
    since: float
    taken_since: float
    asked_sink: float
    detached_at: float
    open_body: bytes | None  # None: the agent's end
    sought: bytes | None
    early: bytes  # came before the target was connected
    kept: bytes  # from `snd_una` to `snd_nxt`

    def pack(self) -> bytes:
        open_body, sought = self.open_body or b"", self.sought or b""
        head = b"".join(
            (
                _HEAD.pack(
                    *self[:-4],
                    self.open_body is not None,
                    self.sought is not None,
                    len(open_body),
                    len(sought),
                    len(self.early),
                ),
                open_body,
                sought,
            )
        )
        return b"".join((_LEAD.pack(FORMAT, crc32(head)), head, self.early, self.kept))

    @property
    def acknowledged(self) -> int:
        """Bytes, without the end, which is counted as one."""
        return self.snd_una - self.fin_acked

    @classmethod
    def read(cls, data: bytes | memoryview) -> Self:
        """Of what `pack` gave, neither more nor less. Raises ValueError for anything else."""
        if len(data) < _BEGIN:
            raise ValueError("a flow's record is cut")
        format_, check = _LEAD.unpack_from(data)
        if format_ != FORMAT:
            raise ValueError(f"a flow's record has format {format_}, and this release reads {FORMAT}")
        *members, opens, seeks, open_size, sought_size, early_size = _HEAD.unpack_from(data, _LEAD.size)
        sought_at = _BEGIN + open_size
        early_at = sought_at + sought_size
        kept_at = early_at + early_size
        if kept_at > len(data):
            raise ValueError("a flow's record is cut")
        if crc32(data[_LEAD.size : early_at]) != check:
            raise ValueError("a flow's record is garbled")
        record = cls._make(
            (
                *members,
                bytes(data[_BEGIN:sought_at]) if opens else None,
                bytes(data[sought_at:early_at]) if seeks else None,
                bytes(data[early_at:kept_at]),
                bytes(data[kept_at:]),
            )
        )
        if not record.makes_sense():
            raise ValueError("a flow's record contradicts itself")
        return record

    @staticmethod
    def cid_of(data: bytes) -> bytes:
        """Of a record that may yet turn out to be none."""
        return data[_LEAD.size : _LEAD.size + CID_SIZE]

    def makes_sense(self) -> bool:
        """Whether a flow can be so: its numbers are in order, and there are as many bytes as they say."""
        opening_far = self.open_body is None and self.state <= FlowState.OPENING_FIN
        return (
            self.state < FlowState.CLOSED
            and self.snd_una <= self.snd_max + self.fin_sent
            and self.snd_max <= self.snd_nxt < _MAX_OFFSET
            and self.rcv_nxt <= self.rcv_limit < _MAX_OFFSET
            and self.rcv_acked <= self.rcv_nxt + self.fin_received
            and 0 < self.window < _MAX_OFFSET
            and (self.fin_owed or self.fin_sent) == (self.state in _ENDED)
            and len(self.early) == (self.rcv_nxt if opening_far else 0)
            and len(self.kept) == max(0, self.snd_nxt - self.snd_una)
        )
