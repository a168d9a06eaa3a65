"""The transcript of `tests/vectors/transcript.json` as the page shows it: each frame in words and in bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ncfast._frames import FrameType, decode

SOURCE = Path(__file__).parents[1] / "tests" / "vectors" / "transcript.json"
HEADER = (1, 1, 2, 4, 8, 16, 8, 8, 8)  # bytes of the fields
ROW = 32  # bytes of a body in a line
ACKNOWLEDGE = (FrameType.M_OPEN_ACK, FrameType.M_ACK, FrameType.M_RESUME, FrameType.M_RESUME_ACK)
NUMBERED = (FrameType.M_DATA, FrameType.M_FIN)
FROM = {"agent": "agent → hub", "hub": "hub → agent"}


def _fields(frame: tuple[Any, ...]) -> str:
    """Those that say something, but for the body."""
    type_, _, code, epoch, _, seq, ack, limit, _, _ = frame
    said = {"code": code, "epoch": epoch, "seq": seq, "ack": ack, "limit": limit}
    zeros = {"ack"} if type_ in ACKNOWLEDGE else {"seq"} if type_ in NUMBERED else set()
    return ", ".join(f"{name} {value}" for name, value in said.items() if value or name in zeros)


def _bytes(wire: bytes) -> list[str]:
    """The header by fields, up to the cid and behind it; the body in rows."""
    parts, at = [], 0
    for size in HEADER:
        parts.append(wire[at : at + size].hex())
        at += size
    rows = [wire[start : start + ROW] for start in range(at, len(wire), ROW)]
    text = ["".join(chr(byte) if 32 <= byte < 127 else "." for byte in row) for row in rows]
    return [
        " ".join(parts[:6]),
        " ".join(parts[6:]),
        *(f"{row.hex():<{2 * ROW}}  {shown}" for row, shown in zip(rows, text, strict=True)),
    ]


def text() -> str:
    """All lines in one block."""
    out = []
    for line in json.loads(SOURCE.read_text()):
        if "hex" not in line:
            out.append(f"-- {'' if line['by'] == 'cut' else 'the ' + line['by'] + ' '}{line['says']}")
            continue
        wire = bytes.fromhex(line["hex"])
        frame = decode(wire)
        lost = "LOST  " if line.get("lost") else ""
        out.append(f"{lost}{FROM[line['by']]}  {FrameType(frame[0]).name}  {_fields(frame)}".rstrip())
        out.append(f"    {line['says']}")
        out += [f"    {row}" for row in _bytes(wire)]
    return "```text\n" + "\n".join(out) + "\n```"
