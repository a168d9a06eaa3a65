"""The Cython modules are built as setup.py says: the flags are there once they are in what is loaded."""

from __future__ import annotations

import importlib
import struct
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "ncfast").rglob("*.pyx"))
# From the ELF specification and elf.h, for 64 bits and little-endian machines, which are what the codec is written for.
PT_DYNAMIC, PT_GNU_RELRO = 2, 0x6474E552
DT_FLAGS, DT_FLAGS_1 = 30, 0x6FFFFFFB
DF_BIND_NOW, DF_1_NOW = 8, 1

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="modules are ELF on Linux alone")


def segments(elf: bytes) -> dict[int, tuple[int, int]]:
    """Program headers by type: offset and size in the file."""
    assert elf[:6] == b"\x7fELF\x02\x01"
    (start,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    found = {}
    for at in range(start, start + size * count, size):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", elf, at)
        found[kind] = (offset, length)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_hardened(name):
    elf = Path(importlib.import_module(name).__file__).read_bytes()
    there = segments(elf)
    assert PT_GNU_RELRO in there
    offset, length = there[PT_DYNAMIC]
    dynamic = dict(struct.iter_unpack("<QQ", elf[offset : offset + length]))
    assert dynamic.get(DT_FLAGS, 0) & DF_BIND_NOW or dynamic.get(DT_FLAGS_1, 0) & DF_1_NOW
    assert b"__stack_chk_fail" in elf
