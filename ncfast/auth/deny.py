"""Tokens that count no longer, though they are well signed and have not expired: the rules of `auth.jwt.deny`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ncfast.auth.identity import Identity


class Rule(Protocol):
    """Which tokens are meant: those to which all of it applies that is not None. Times are unix seconds."""

    @property
    def sub(self) -> str | None: ...
    @property
    def tenant(self) -> str | None: ...
    @property
    def jti(self) -> str | None: ...
    @property
    def issued_before(self) -> float | None: ...


def denied(rules: Iterable[Rule], identity: Identity) -> Rule | None:
    """The first rule that names the token, or None."""
    return next((rule for rule in rules if _names(rule, identity)), None)


def bars(rule: Rule) -> bool:
    """Whether no other token lets the agent in: what the rule says is said of the agent, not of one token."""
    return rule.jti is None and rule.issued_before is None


def _names(rule: Rule, identity: Identity) -> bool:
    return (
        (rule.sub is None or rule.sub == identity.agent_id)
        and (rule.tenant is None or rule.tenant == identity.tenant)
        and (rule.jti is None or rule.jti == identity.token_id)
        and (rule.issued_before is None or identity.issued_at < rule.issued_before)
    )
