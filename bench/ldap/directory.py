"""The directory at the far end: OpenLDAP's slapd with an administrator and 1,000 people, made anew each time.

The tests have the same one (`tests/support/services.py`). What the load generator expects of an entry stands in
`bench/ldap/messages.h`.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.ports import free_port
from bench.process import running
from bench.service import Service

SUFFIX = "dc=example,dc=net"
PEOPLE = f"ou=people,{SUFFIX}"
ADMIN = f"cn=admin,{SUFFIX}"
PASSWORD = "correct horse"
ENTRIES = 1000
LOAD_SEC = 120.0  # for slapadd, which takes one on an idle machine

CONFIG = """
{schemas}{modules}
pidfile {folder}/slapd.pid
sizelimit unlimited
database mdb
maxsize 67108864
dbnosync
suffix "{suffix}"
rootdn "{admin}"
rootpw "{password}"
directory {database}
index objectClass,uid eq
"""


def people() -> str:
    """The tree in LDIF."""
    entries = (
        f"dn: uid=user{n},{PEOPLE}\nobjectClass: inetOrgPerson\nuid: user{n}\ncn: User {n}\n"
        f"sn: Surname {n}\nmail: user{n}@example.net\n"
        f"description: {hashlib.sha256(b'%d' % n).hexdigest() * 4}\n\n"
        for n in range(ENTRIES)
    )
    return (
        f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\no: Example\ndc: example\n\n"
        f"dn: {PEOPLE}\nobjectClass: organizationalUnit\nou: people\n\n{''.join(entries)}"
    )


def prepare(folder: Path, loader: str) -> Path:
    """A database in ``folder``, filled by the program ``loader`` (slapadd); slapd's configuration of it."""
    database = folder / "ldap-db"
    database.mkdir()
    places = [path for path in (Path("/etc/ldap"), Path("/etc/openldap")) if (path / "schema").is_dir()]
    modules = [path for path in (Path("/usr/lib/ldap"), Path("/usr/lib/openldap")) if (path / "back_mdb.so").exists()]
    config = folder / "slapd.conf"
    config.write_text(
        CONFIG.format(
            schemas="".join(
                f"include {places[0]}/schema/{name}.schema\n" for name in ("core", "cosine", "inetorgperson")
            ),
            modules="".join(f"modulepath {path}\nmoduleload back_mdb\n" for path in modules[:1]),
            folder=folder,
            suffix=SUFFIX,
            admin=ADMIN,
            password=PASSWORD,
            database=database,
        )
    )
    ldif = folder / "people.ldif"
    ldif.write_text(people())
    subprocess.run(
        [loader, "-q", "-f", str(config), "-l", str(ldif)], check=True, capture_output=True, timeout=LOAD_SEC
    )
    return config


def slapd_command(server: str, config: Path, port: int) -> list[str]:
    """slapd at a port of loopback, in the foreground; it says when it listens."""
    return [server, "-d", "none", "-f", str(config), "-h", f"ldap://127.0.0.1:{port}/"]


@contextmanager
def directory(folder: Path) -> Iterator[Service]:
    """slapd, once it listens."""
    config = prepare(folder, "slapadd")
    port = free_port()
    with running(slapd_command("slapd", config, port), folder / "slapd.log") as process:
        process.wait_for_text("slapd starting")
        yield Service(("127.0.0.1", port), process)
