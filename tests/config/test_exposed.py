"""Files that others can read or write: whose bits count, of which files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ncfast.config.exposed import exposed
from ncfast.config.hub import Jwt
from ncfast.config.loader import load_any

HUB = """
listeners: []
edge: {{ tls: {{ cert_file: {0}/cert, key_file: {0}/key, client_ca_file: {0}/ca }} }}
auth: {{ jwt: {{ key_file: {0}/jwt, algorithms: [{1}] }} }}
ha:
  enabled: true
  replica_id: a
  redis_url: redis://127.0.0.1
  redis_password_file: {0}/redis
  mesh: {{ secret_file: {0}/mesh }}
"""
AGENT = """
hubs: ['wss://h/tunnel']
agent_id: a
token_file: {0}/token
connectors: [{{ name: c, target: '127.0.0.1:1' }}]
tls: {{ ca_file: {0}/ca }}
"""
SECRETS = {"key": "edge.tls.key_file", "jwt": "auth.jwt.key_file", "redis": "ha.redis_password_file"}
SECRETS |= {"mesh": "ha.mesh.secret_file"}
PUBLIC = {"cert": "edge.tls.cert_file", "ca": "edge.tls.client_ca_file"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*SECRETS, *PUBLIC, "token"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)
    return tmp_path


def told(folder: Path, text: str = HUB, algorithm: str = "HS256") -> list[str]:
    (folder / "file.yaml").write_text(text.format(folder, algorithm))
    return list(exposed(load_any(folder / "file.yaml", {})))


def keys(lines: list[str]) -> set[str]:
    return {line.partition(":")[0] for line in lines}


def test_files_of_ours_alone_are_not_spoken_of(folder):
    assert told(folder) == told(folder, AGENT) == []
    for name in PUBLIC:
        (folder / name).chmod(0o644)  # as certificates are meant to be
    assert told(folder) == []


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o602, 0o620, 0o666])
def test_secrets_that_others_can_read_or_write_are_named(folder, mode):
    for name in (*SECRETS, "token"):
        (folder / name).chmod(mode)
    assert keys(told(folder)) == set(SECRETS.values())
    (line,) = told(folder, AGENT)
    assert line.startswith(f"token_file: {folder}/token can be ") and f"(mode {mode:04o})" in line
    assert ("read by" in line) is bool(mode & 0o044) and ("written by" in line) is bool(mode & 0o022)


@pytest.mark.parametrize("mode", [0o646, 0o664])
def test_what_only_has_to_be_true_may_be_read_and_not_written(folder, mode):
    for name in PUBLIC:
        (folder / name).chmod(mode)
    assert keys(told(folder)) == set(PUBLIC.values())


def test_public_keys_of_an_issuer_are_no_secret(folder):
    (folder / "jwt").chmod(0o644)
    assert told(folder, algorithm="RS256") == []
    (folder / "jwt").chmod(0o666)
    assert keys(told(folder, algorithm="RS256")) == {"auth.jwt.key_file"}


def test_a_key_that_the_environment_names(folder):
    (folder / "jwt").chmod(0o644)
    jwt = Jwt.model_validate({"key_file": str(folder / "jwt")})
    assert keys(list(exposed(jwt, "auth.jwt"))) == {"auth.jwt.key_file"}


def test_a_secret_of_another_user_is_given_to_us_by_the_group(folder, monkeypatch):
    """As Kubernetes mounts one with fsGroup and defaultMode 0400: a link to a file of root, mode 0440."""
    (folder / "mounted").mkdir()
    (folder / "mesh").rename(folder / "mounted/mesh")
    (folder / "mesh").symlink_to("mounted/mesh")
    (folder / "mesh").chmod(0o440)
    assert keys(told(folder)) == {"ha.mesh.secret_file"}  # our own: then the group is somebody else
    monkeypatch.setattr(os, "geteuid", lambda: (folder / "mesh").stat().st_uid + 1)
    assert told(folder) == []
    (folder / "mesh").chmod(0o460)
    assert keys(told(folder)) == {"ha.mesh.secret_file"}
    (folder / "mesh").chmod(0o444)
    assert keys(told(folder)) == {"ha.mesh.secret_file"}


def test_files_that_are_not_here_are_for_their_readers_to_miss(folder):
    (folder / "mesh").unlink()
    assert told(folder) == []
