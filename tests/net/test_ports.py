"""Why a port cannot be listened on: words for whoever has to put it right."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from ncfast.net.ports import refusal, wanted_by

IN_USE = OSError(errno.EADDRINUSE, "")
DENIED = OSError(errno.EACCES, "")
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def proc(root, sockets, first=1024):
    """A /proc with `sockets`: (table, port, state, uid, inode)."""
    for table in ("tcp", "tcp6"):
        rows = [
            f"   0: 0100007F:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 {uid} 0 {inode}\n"
            for where, port, state, uid, inode in sockets
            if where == table
        ]
        (root / "net").mkdir(exist_ok=True)
        (root / "net" / table).write_text(HEAD + "".join(rows))
    (root / "sys/net/ipv4").mkdir(parents=True)
    (root / "sys/net/ipv4/ip_unprivileged_port_start").write_text(f"{first}\n")
    return root


def process(root, pid, comm, *inodes):
    (root / str(pid) / "fd").mkdir(parents=True)
    (root / str(pid) / "comm").write_text(comm + "\n")
    for number, inode in enumerate(inodes):
        (root / str(pid) / "fd" / str(number)).symlink_to(f"socket:[{inode}]")


def test_a_process_is_named(tmp_path):
    root = proc(tmp_path, [("tcp", 389, "0A", 0, 71), ("tcp", 389, "01", 0, 72), ("tcp6", 390, "0A", 0, 73)])
    process(root, 812, "slapd", 71, 99)
    process(root, 813, "other", 72, 73)  # a connection of that port, and another port's listener
    assert refusal(IN_USE, 389, root) == "Address already in use, by slapd (pid 812)"


def test_a_name_is_printable(tmp_path):
    root = proc(tmp_path, [("tcp6", 389, "0A", 0, 71)])
    process(root, 812, "sl\x1bapd", 71)
    assert refusal(IN_USE, 389, root).endswith("by sl\\x1bapd (pid 812)")


def test_of_a_process_that_is_not_ours_to_see_the_user_is_told(tmp_path):
    root = proc(tmp_path, [("tcp", 389, "0A", 119, 71)])
    assert refusal(IN_USE, 389, root) == "Address already in use, by a process of user 119"


def test_without_proc_the_kernel_alone_speaks(tmp_path):
    assert refusal(IN_USE, 389, tmp_path) == "Address already in use"
    assert refusal(DENIED, 389, tmp_path) == "Permission denied"


@pytest.mark.parametrize(("port", "first", "told"), [(389, 1024, True), (1024, 1024, False), (389, 80, False)])
def test_the_right_that_is_missing(tmp_path, port, first, told):
    text = refusal(DENIED, port, proc(tmp_path, [], first))
    assert ("CAP_NET_BIND_SERVICE" in text) == told and text.startswith("Permission denied")


def test_a_real_listener_is_found():
    with socket.create_server(("127.0.0.1", 0)) as held:
        assert f"(pid {os.getpid()})" in refusal(IN_USE, held.getsockname()[1])


def test_the_key_is_named():
    with pytest.raises(OSError, match=r"^\[Errno 98\] edge\.bind: cannot listen") as caught, wanted_by("edge.bind"):
        raise OSError(errno.EADDRINUSE, "cannot listen on :1")
    assert caught.value.errno == errno.EADDRINUSE
