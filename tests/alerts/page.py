"""A runbook at night: the page that an alert leads to, and its first commands at the hub that the alert names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from support.cluster import Cluster
from support.process import child_env
from support.until import PATIENCE
from support.walk import blocks

ROOT = Path(__file__).parents[2]
ASKING = ("status", "flows", "agents")  # commands that ask a hub's admin edge
NCFAST = """\
#!/bin/sh
case $1 in {asking}) exec {python} -m ncfast "$@" --url {url} ;; esac
exec {python} -m ncfast "$@"
"""
FIRST = ("Confirm", "When the budget burns")  # headings under which a page's first commands stand


class Page:
    """What `runbook_url` names; raises AssertionError when there is no such page in the repository."""

    def __init__(self, url: str) -> None:
        self.name = url
        path = ROOT / url
        assert path.is_file(), f"no page {url}"
        self.text = path.read_text()

    def leads(self, alert: str) -> bool:
        """Whether the page says that the alert leads here."""
        return f"`{alert}`" in self.text

    def commands(self) -> str:
        """The first block of commands."""
        found = next(filter(None, (blocks(self.text, heading) for heading in FIRST)), None)
        assert found, f"no commands in {self.name}"
        return "\n".join(found[0])

    def shown(self, cluster: Cluster, name: str, desk: Path) -> str:
        """What those commands write at a hub. Paths and addresses are those of the cluster, as the pages' own first
        page says: the admin edge is where the file has it, `hub.log` and `agent.log` where the logs are."""
        hub = cluster.hubs[name]
        url = "http://%s:%d" % hub.admin
        _lay_out(cluster, name, desk, url)
        text = self.commands()
        for written, here in (
            ("http://127.0.0.1:9400", url),
            ("/etc/ncfast/", f"{desk}/"),
            ("10.0.0.11:9500", "%s:%d" % cluster.mesh_address(name)),
        ):
            text = text.replace(written, here)
        env: dict[str, Any] = {"PATH": f"{desk / 'bin'}:{child_env()['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", text],
            cwd=desk,
            env=child_env(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        return done.stdout


def _lay_out(cluster: Cluster, name: str, desk: Path, url: str) -> None:
    """A folder as the pages have it."""
    (desk / "bin").mkdir(parents=True, exist_ok=True)
    tool = desk / "bin" / "ncfast"
    tool.write_text(NCFAST.format(asking="|".join(ASKING), python=sys.executable, url=url))
    tool.chmod(0o755)
    agent = cluster.agents[-1]
    links = {"hub.log": cluster.hubs[name].program.err_path, "hub.yaml": cluster.hubs[name].config_path}
    links |= {"agent.log": agent.program.err_path, "agent.yaml": agent.config_path}
    for one in cluster.names:
        links[f"{one}.pem"] = links[f"{one}.key"] = cluster.directory / f"{one}.pem"
    for written, path in links.items():
        link = desk / written
        link.unlink(missing_ok=True)
        link.symlink_to(path)
