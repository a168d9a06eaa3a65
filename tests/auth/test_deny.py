"""Rules of auth.jwt.deny: which tokens they name, and what a file may say."""

from __future__ import annotations

import pytest
from support.tokens import NOW

from ncfast.auth import Identity, bars, denied
from ncfast.config.hub import Deny
from ncfast.config.loader import build
from ncfast.config.problems import ConfigError
from ncfast.config.yamlfile import Document

WHO = Identity("site-1", "acme", None, NOW + 60, NOW, "t-1")


@pytest.mark.parametrize(
    ("rule", "named", "barring"),
    [
        ({"sub": "site-1"}, True, True),
        ({"sub": "site-1", "tenant": "acme"}, True, True),
        ({"sub": "site-1", "tenant": "other"}, False, True),
        ({"sub": "site"}, False, True),
        ({"tenant": "acme"}, True, True),
        ({"jti": "t-1"}, True, False),
        ({"jti": "t-2"}, False, False),
        ({"jti": "t-1", "sub": "other"}, False, False),
        ({"issued_before": NOW}, False, False),
        ({"issued_before": NOW + 0.5}, True, False),
        ({"issued_before": "2001-01-01T00:00:00Z"}, False, False),
        ({"issued_before": "2100-01-01T00:00:00+02:00"}, True, False),
        ({"sub": "site-1", "issued_before": NOW + 1}, True, False),
        ({"sub": "other", "issued_before": NOW + 1}, False, False),
    ],
)
def test_a_rule_names_the_tokens_to_which_all_of_it_applies(rule, named, barring):
    made = Deny.model_validate(rule)
    assert (denied([made], WHO) is made) == named
    assert bars(made) == barring


def test_a_token_without_an_id_is_none_that_a_rule_names_by_id():
    assert denied([Deny.model_validate({"jti": "t-1"})], Identity("site-1", None, None, NOW + 60, NOW)) is None


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"issued_before": "yesterday"},
        {"issued_before": "2026-11-26T12:00:00"},
        {"issued_before": True},
        {"issued_before": -1},
        {"issued_before": float("nan")},
        {"sub": "no/name"},
        {"jti": ""},
        {"subject": "site-1"},
    ],
)
def test_a_rule_that_says_nothing_or_nonsense_is_refused(rule):
    with pytest.raises(ConfigError):
        build(Deny, Document.of("test", rule))
