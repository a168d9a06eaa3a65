"""What a process is given at its start: standard descriptors, limits, signals, address families."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import no_ipv6
from support.ncfast_process import FAST_HUB, Hub, merged


def hub_config(directory: Path, over: dict[str, Any] | None = None) -> dict[str, Any]:
    """Of a hub with one listener."""
    key_file = directory / "jwt.key"
    key_file.write_text(secrets.token_hex(32))
    base = {
        "auth": {"jwt": {"key_file": str(key_file)}},
        "listeners": [{"name": "l", "bind": "127.0.0.1:0", "connector": "c"}],
    }
    return merged(merged(FAST_HUB, base), over or {})


def hub_file(directory: Path, over: dict[str, Any] | None = None) -> Path:
    path = directory / "hub.yaml"
    path.write_text(yaml.safe_dump(hub_config(directory, over)))
    return path


# address families


def test_a_hub_on_every_interface_starts_on_a_kernel_without_ipv6(tmp_path: Path) -> None:
    prefix = [sys.executable, no_ipv6.__file__]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no seccomp filters here")
    everywhere = {"bind": ":0"}
    over = {"listeners": [{"name": "l", "connector": "c", **everywhere}], "edge": everywhere, "admin": everywhere}
    mesh = {"listen": ":0", "secret_file": str(tmp_path / "jwt.key"), "require_mtls": False}
    over |= {"ha": {"enabled": True, "replica_id": "hub-a", "mode": "active", "mesh": mesh}}
    hub = Hub(tmp_path, hub_config(tmp_path, over), prefix=prefix)
    try:
        assert hub.get("/healthz")[0] == hub.get("/healthz", admin=True)[0] == 200
    finally:
        assert hub.stop() == 0
