"""Who an agent is, once its token has been believed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ncfast.auth.keys import Key

# Agent ids, connector names and tenants: safe in a log line, a Redis key, a file name and a metric label.
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def is_safe_name(value: object) -> bool:
    """Whether `value` may serve as agent id, connector name or tenant."""
    return isinstance(value, str) and _SAFE_NAME.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Identity:
    """The verified content of a token. Times are unix seconds.

    `connectors` is what the agent may announce; None means any connector of its tenant. `certificate` is the SHA-256 of
    the only client certificate that the token may be shown with; None means that the issuer has bound it to none.
    `signed_by` is the key that the token was believed for: of a tunnel that stands this is kept, and not the token, to
    ask whether it counts still.
    """

    agent_id: str
    tenant: str | None
    connectors: frozenset[str] | None
    expires_at: float
    issued_at: float
    token_id: str | None = None
    certificate: bytes | None = None
    signed_by: Key | None = field(default=None, compare=False, repr=False)

    @property
    def key(self) -> str:
        """The agent's name across tenants, each of which is a name space of its own."""
        return f"{self.tenant or ''}/{self.agent_id}"

    def allows(self, connector: str) -> bool:
        """Whether the agent may serve `connector`; ask at every open, not only when it is announced."""
        return self.connectors is None or connector in self.connectors
