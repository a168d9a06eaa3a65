"""What the Dockerfile promises to whoever runs the image; that it builds and runs is `make image-rehearsal`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ncfast.cli import hubs

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
LAST_STAGE = DOCKERFILE.rpartition("\nFROM ")[2]


def instruction(name: str) -> list[str]:
    """Its arguments in the stage that becomes the image, each time that it is there."""
    return re.findall(rf"^{name} (.*)$", LAST_STAGE.replace("\\\n", ""), re.MULTILINE)


def test_the_base_is_pinned_by_digest_in_one_place():
    (base,) = re.findall(r"^ARG BASE=(.*)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${BASE}"}


def test_the_user_is_a_number_and_not_root():
    (user,) = instruction("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_stopping_it_drains():
    assert instruction("STOPSIGNAL") == ["SIGTERM"]


def test_health_is_asked_where_a_hub_answers_unless_told_otherwise():
    (check,) = instruction("HEALTHCHECK")
    assert f'ncfast status --url "${{NC_ADMIN_URL:-{hubs.DEFAULT}}}"' in check
    assert check.endswith("|| exit 1"), "2 and above are reserved"


@pytest.mark.parametrize("label", ["title", "description", "licenses", "version", "revision"])
def test_labels_say_what_it_is(label):
    (labels,) = instruction("LABEL")
    assert f"org.opencontainers.image.{label}=" in labels
