"""Each runbook is reached by its alerts, says what is asked at night, and names what there is."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import jwt
import pytest
from support.process import require
from support.until import PATIENCE

from ncfast.core.errors import Reason

ROOT = Path(__file__).parents[2]
SOURCES = [path for path in (ROOT / "ncfast").rglob("*.py*") if path.suffix in (".py", ".pyx")]
RUNBOOKS = sorted(path for path in (ROOT / "docs" / "runbooks").glob("*.md") if path.stem != "README")
RULES = [path for path in sorted((ROOT / "config" / "prometheus").glob("*.yaml")) if ".test" not in path.name]
PARTS = ["What users feel", "Confirm", "Do", "Over when", "Undo"]


def ids(path: Path) -> str:
    return path.name


def alerts(page: Path) -> list[str]:
    """Those that the page's first paragraph says lead to it."""
    first = page.read_text().split("\n\n", maxsplit=2)[1]
    assert first.startswith("**Alerts that lead here:** ")
    return re.findall(r"`(\w+)`", first)


def rules() -> dict[str, str]:
    """By alert: the page that its runbook_url names, or nothing."""
    found = {}
    for path in RULES:
        for rule in path.read_text().split("- alert: ")[1:]:
            page = re.search(r"runbook_url: \S*?(docs/\S+\.md)", rule)
            found[rule.split()[0]] = page[1] if page else ""
    return found


def test_every_alert_leads_to_one_page_which_names_it():
    led = {name: f"docs/runbooks/{page.name}" for page in RUNBOOKS for name in alerts(page)}
    assert len(led) == sum(len(alerts(page)) for page in RUNBOOKS)
    for name, url in rules().items():
        page = led.get(name, url)
        assert page and url in ("", page), name
        assert name in (ROOT / page).read_text()


@pytest.mark.parametrize("page", RUNBOOKS, ids=ids)
def test_a_runbook_says_what_is_asked_at_night(page):
    titles = re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE)
    assert [title for title in titles if title in PARTS] == PARTS
    assert f"({page.name})" in (page.parent / "README.md").read_text()


@pytest.mark.parametrize("page", RUNBOOKS, ids=ids)
def test_events_reasons_and_metrics_of_a_runbook_exist(page):
    text = page.read_text()
    known = (ROOT / "docs" / "metrics.md").read_text()
    metrics = set(re.findall(r"`(nowconnect_\w+)", text))
    events = {
        word
        for line in re.findall(r"^.*grep .*log.*$", text, re.MULTILINE)
        for word in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", line)
    }
    written = {word for path in SOURCES for word in re.findall(r'"(\w+)"', path.read_text())}
    reasons = {reason.label for reason in Reason}
    assert not [name for name in metrics if f"`{name}`" not in known]
    assert not events - written - reasons


def block(page: str, begins: str) -> str:
    """A page's code that begins so."""
    blocks = re.findall(r"^```\w+\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (one for one in blocks if one.startswith(begins))
    return found


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_the_script_that_renews_a_token_does(tmp_path):
    """SSH's two programs are stood in for: the site is a directory."""
    key, site, path = tmp_path / "jwt.key", tmp_path / "site", tmp_path / "bin"
    key.write_text("k" * 32)
    site.mkdir()
    path.mkdir()
    program(path / "scp", f'#!/bin/sh\nexec cp -p "$2" "{site}/${{3#*:}}"\n')
    program(path / "ssh", f'#!/bin/sh\ncd "{site}" && exec sh -c "$2"\n')
    text = block("docs/runbooks/secrets.md", "#!/bin/sh\n# renew-token")
    for there, here in (
        ("/opt/ncfast/bin/ncfast", f"{sys.executable} -m ncfast"),
        ("/etc/ncfast/jwt.key", str(key)),
    ):
        assert text.count(there) == 1
        text = text.replace(there, here)
    script = program(tmp_path / "renew-token", text)
    env = os.environ | {"PATH": f"{path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}

    def renew() -> int:
        return subprocess.run([script, "site-1"], env=env, cwd=ROOT, timeout=PATIENCE).returncode

    before = set(tmp_path.iterdir())
    assert renew() == 0 and set(tmp_path.iterdir()) == before  # its own file is gone
    token = site / "site-1.token"
    claims = jwt.decode(token.read_text().strip(), key.read_text(), ["HS256"], audience="nowconnect")
    assert claims["sub"] == "site-1" and claims["exp"] - claims["iat"] == 86400
    assert stat.S_IMODE(token.stat().st_mode) == 0o600 and os.listdir(site) == ["site-1.token"]
    shown = token.read_text()
    key.write_text("short")
    assert renew() != 0 and token.read_text() == shown  # what cannot be made replaces nothing


def test_systemd_takes_the_timer_that_renews_a_token(tmp_path):
    require("systemd-analyze")
    units = {
        "service": block("docs/runbooks/secrets.md", "[Unit]\nDescription=a new token"),
        "timer": block("docs/runbooks/secrets.md", "[Timer]"),
    }
    for kind, text in units.items():
        text = text.replace("/etc/ncfast/renew-token", "/bin/true").replace("User=ncfast\n", "")
        (tmp_path / f"ncfast-token@.{kind}").write_text(text)
    named = [tmp_path / f"ncfast-token@site-1.{kind}" for kind in units]
    for path in named:
        path.symlink_to(path.name.replace("site-1", ""))
    done = subprocess.run(["systemd-analyze", "verify", *named], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "ncfast-token" in line]) == (0, [])
