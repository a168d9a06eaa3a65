"""What a new reader comes to with the commands of README and docs, as they stand there, in a clone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from support.process import require
from support.until import wait_until
from support.walk import Walk, blocks

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CLUSTERS = (ROOT / "docs" / "high-availability.md").read_text()
FOUND = "uid: ann"
LDIF = """\
dn: dc=example,dc=net
objectClass: dcObject
objectClass: organization
o: Example
dc: example

dn: uid=ann,dc=example,dc=net
objectClass: inetOrgPerson
uid: ann
cn: Ann
sn: Example
"""
SLAPD = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/pid
database mdb
suffix dc=example,dc=net
directory {folder}
"""


def directory(folder: Path) -> str:
    """The command that runs the reader's own LDAP server, which is there before ncfast is."""
    slapd, slapadd, _ = require("slapd", "slapadd", "ldapsearch")
    config, ldif = folder / "slapd.conf", folder / "ldif"
    config.write_text(SLAPD.format(folder=folder))
    ldif.write_text(LDIF)
    subprocess.run([slapadd, "-q", "-f", config, "-l", ldif], check=True, capture_output=True)
    return f"{slapd} -d 256 -f {config} -h ldap://127.0.0.1:389/"


def first_use(walk: Walk, folder: Path) -> None:
    """README, to an answer from the directory through hub and agent."""
    walk.type(directory(folder))
    (lines,) = blocks(README, "First use: LDAP")
    said = {line: walk.type(line.replace("HUB", "127.0.0.1")) for line in lines}
    (search,) = (text for line, text in said.items() if line.startswith("ldapsearch"))
    assert FOUND in search
    assert "l1 " in said["ncfast status"] and " 1 opened" in said["ncfast status"]


def mutual_tls(walk: Walk, folder: Path) -> None:
    """docs/high-availability.md, to an answer through each of three hubs, of which two have not the agent."""
    require("redis-server", "openssl")
    walk.type(directory(folder))
    prepare, start, look = blocks(CLUSTERS, "Setting up")
    for line in (*prepare, *start):
        walk.type(line)

    def status(line: str) -> dict:
        return json.loads(walk.type(line.replace("ncfast status", "ncfast status --json")))

    (state,) = (line for line in look if line.startswith("ncfast status"))
    wait_until(lambda: [row["state"] for row in status(state)["cluster"]["mesh"]] == ["up", "up"], "both links")
    wait_until(lambda: status(state)["cluster"]["agents"], "the owner known there")
    said = {line: walk.type(line) for line in look}
    assert said[state].count("stream TLS") == 2
    searches = [text for line, text in said.items() if line.startswith("ldapsearch")]
    assert [FOUND in text for text in searches] == [True] * 3
    ways = dict.fromkeys(("local", "mesh"), 0)
    for host in ("127.0.0.11", "127.0.0.12", "127.0.0.13"):
        metrics = walk.type(f"curl -s http://{host}:9400/metrics")
        for path in ways:
            ways[path] += metrics.count(f'nowconnect_flows_by_path_total{{path="{path}"}} 1.0')
    assert ways == {"local": 1, "mesh": 2}
