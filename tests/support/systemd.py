"""A systemd of the tests' own: the first process of a PID namespace, with this repository's units, and the working tree
installed where they look for it.

Needs root, systemd, and a cgroup2 hierarchy; where that is not permitted `Systemd` skips the test and says why.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from support.process import PACKAGE_ROOT, Program, child_env, require
from support.until import PATIENCE, wait_until

UNITS = Path(__file__).parents[2] / "config" / "systemd"
PLACES = ("/usr/lib/systemd", "/lib/systemd")
# in a unit's environment: an interpreter may look in its own home alone; and where a test has its plants
ENVIRONMENT = "LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/etc/plants:/opt/product:/opt/packages"
JOURNAL = ("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket")
TARGETS = ("sysinit.target", "basic.target", "sockets.target", "shutdown.target", "multi-user.target", "umount.target")

# The host's file system, but for what the units and systemd itself write to, and /opt: the interpreter, the installed
# packages and the product, each bound there, as the places where they lie may be a home, which the units do not see.
_ENTER = """
mount --make-rprivate /
mount --make-rshared /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /run/etc.work
cp -a "$1" /run/etc.up
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc.up,workdir=/run/etc.work overlay /etc
mount -t tmpfs -o mode=755 tmpfs /var/log
mount -t tmpfs -o mode=755 tmpfs /run/opt -o X-mount.mkdir
mkdir -p /run/opt/python /run/opt/packages /run/opt/product /run/opt/ncfast/bin
mount --bind "$2" /run/opt/python
mount --bind "$3" /run/opt/packages
mount --bind "$4" /run/opt/product
cp /etc/ncfast.program /run/opt/ncfast/bin/ncfast
mount --rbind /run/opt /opt
systemd-sysusers /etc/sysusers.d/ncfast.conf
chown -R root:ncfast /etc/ncfast
export container=test SYSTEMD_UNIT_PATH=/etc/units
exec "$5" --system --unit=multi-user.target --log-target=journal --show-status=no
"""

_PROGRAM = """#!/opt/python/bin/{python}
import sys
sys.path[:0] = ["/opt/product", "/opt/packages"]
from ncfast.cli.program import main
sys.exit(main())
"""


class Systemd:
    """`files` are below /etc, as text; those of directories that end in .credentials are root's alone."""

    def __init__(self, directory: Path, files: Mapping[str, str]) -> None:
        self._unshare, self._nsenter, systemd = require("unshare", "nsenter", "systemd", places=PLACES)
        require("systemctl", "journalctl", "systemd-sysusers")
        self._group = _groups() / f"ncfast-test-{secrets.token_hex(4)}"
        self._root = directory / "etc"
        self._lay_out(files)
        try:
            self._group.mkdir()
        except OSError as error:
            pytest.skip(f"no cgroups here: {error}")
        namespaces = ("--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child")
        places = (self._root, sys.base_prefix, sysconfig.get_path("platlib"), PACKAGE_ROOT, systemd)
        argv = ["sh", "-euc", 'echo $$ > "$0"/cgroup.procs; exec "$@"', str(self._group), self._unshare, *namespaces]
        env = child_env({"PATH": f"{child_env()['PATH']}:/usr/sbin:/sbin"})
        self._manager = Program("systemd", [*argv, "sh", "-euc", _ENTER, "sh", *map(str, places)], directory, env=env)
        try:
            self._await()
        except BaseException:
            self.close()
            raise

    def _lay_out(self, files: Mapping[str, str]) -> None:
        units = self._root / "units"
        units.mkdir(parents=True)
        for name in (*JOURNAL, *TARGETS):
            place = next((p for p in PLACES if (Path(p) / "system" / name).exists()), None)
            if place is None:
                pytest.skip(f"systemd's own {name} is not installed")
            shutil.copy(Path(place) / "system" / name, units)
        wanted = units / "sysinit.target.wants"
        wanted.mkdir()
        for name in JOURNAL:
            (wanted / name).symlink_to(f"../{name}")
        for unit in UNITS.glob("*.service"):
            shutil.copy(unit, units)
        (self._root / "sysusers.d").mkdir()
        shutil.copy(UNITS / "ncfast.sysusers", self._root / "sysusers.d" / "ncfast.conf")
        program = self._root / "ncfast.program"
        program.write_text(_PROGRAM.format(python=f"python{sys.version_info.major}.{sys.version_info.minor}"))
        program.chmod(0o755)
        for path, content in files.items():
            at = self._root / path
            at.parent.mkdir(parents=True, exist_ok=True)
            at.write_text(content)

    def _await(self) -> None:
        def up() -> bool:
            if self._manager.exit_code() is not None:
                pytest.skip(f"no systemd of our own here: {self._manager.tail()}")
            return bool(self._pid()) and self.run("systemctl", "is-system-running").stdout.strip() == "running"

        wait_until(up, lambda: f"systemd to be up\n{self._manager.tail()}")

    def _pid(self) -> int:
        """Systemd's own number, as we see it; 0 if it is not there yet."""
        children = Path(f"/proc/{self._manager.pid}/task/{self._manager.pid}/children").read_text().split()
        for child in children:
            with suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                    return int(child)
        return 0

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A command there, as root, to its end."""
        prefix = [self._nsenter, "--target", str(self._pid()), "--mount", "--pid", "--uts", "--ipc", "--cgroup"]
        return subprocess.run(
            [*prefix, *argv], capture_output=True, text=True, timeout=PATIENCE, check=False, cwd="/", env=child_env()
        )

    def do(self, *argv: str) -> str:
        """One that has to succeed; what it said."""
        done = self.run(*argv)
        assert done.returncode == 0, (
            argv,
            done.stdout,
            done.stderr,
            self.run("journalctl", "--no-pager", "--unit", "ncfast-*").stdout,
        )
        return done.stdout

    def shown(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.do("systemctl", "show", "--value", "--property", name, unit).strip()

    def main_pid(self, unit: str) -> int:
        return int(self.shown(unit, "MainPID"))

    def journal(self, unit: str, pid: int) -> str:
        """What a process of the unit has written."""
        return self.do("journalctl", "--no-pager", "--output", "cat", "--unit", unit, f"_PID={pid}")

    def close(self) -> None:
        """All that it has started ends with it."""
        if self._manager.exit_code() is None:
            self._manager.kill()
        wait_until(lambda: not (self._group / "cgroup.procs").exists() or _removed(self._group), "its cgroups to go")


def _groups() -> Path:
    """Where the cgroup2 hierarchy is mounted."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, _ = line.split(" ", 3)
        if kind == "cgroup2" and os.access(place, os.W_OK):
            return Path(place)
    pytest.skip("no cgroup2 hierarchy that may be written to")


def _removed(group: Path) -> bool:
    """Whether group and all below it are gone; not while a process of theirs is left."""
    for place, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(place)
        except OSError:
            return False
    return True
