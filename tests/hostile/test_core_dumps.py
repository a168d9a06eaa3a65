"""What other programs of the same user, and whoever finds a core, could read of a hub's or an agent's memory: nothing,
unless NC_CORE_DUMPS=1 asks for it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.process import child_env
from support.until import PATIENCE

PATTERN = Path("/proc/sys/kernel/core_pattern")
# Stops itself where the process would go on to read its file, so that the parent looks at it then.
STARTED = """
import os, signal, sys
import ncfast.config.loader as config
def stopped(path):
    os.kill(os.getpid(), signal.SIGSTOP)
    sys.exit(3)
config.load_hub = config.load_agent = stopped
from ncfast.cli import main
main([sys.argv[1], "--config", "any.yaml"])
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what the kernel dumps is Linux's")


def crashed(command: str, directory: Path, more: dict[str, str]) -> bool:
    """Whether a process that crashes before it has read any secret leaves a core."""
    child = subprocess.Popen(
        [sys.executable, "-c", STARTED, command],
        cwd=directory,
        env=child_env({"NC_CORE_DUMPS": "0", **more}),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2),
    )
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), status
    os.kill(child.pid, signal.SIGSEGV)
    os.kill(child.pid, signal.SIGCONT)
    _, status = os.waitpid(child.pid, 0)
    child.returncode = status
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSEGV, status
    return os.WCOREDUMP(status)


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY, reason="this machine allows no cores"
)
@pytest.mark.parametrize("command", ["hub", "agent"])
def test_a_crash_leaves_no_core(tmp_path, command):
    assert not crashed(command, tmp_path, {})
    assert list(tmp_path.iterdir()) == []
    if PATTERN.read_text().strip() == "core":  # the control, where a core is a file beside the process
        assert crashed(command, tmp_path, {"NC_CORE_DUMPS": "1"})


@pytest.mark.parametrize(("asked", "dumpable"), [("0", 0), ("1", 1)])
def test_memory_is_closed_to_other_programs_of_the_user(asked, dumpable):
    """PR_GET_DUMPABLE (3) is what ptrace(2) and /proc/PID/mem ask of whoever has no CAP_SYS_PTRACE."""
    script = """
import ctypes, resource
from ncfast.cli.start import forbid_core_dumps
forbid_core_dumps()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE) == (0, 0))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=child_env({"NC_CORE_DUMPS": asked}),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1])),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    words = done.stdout.split()
    assert int(words[0]) == dumpable and (dumpable == 1 or words[1] == "True")
