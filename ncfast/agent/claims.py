"""What the agent's token says of itself, read without a key: only a hub can judge it, but why it will be refused the
agent's own log can say."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import Any

import orjson

AUDIENCE = "nowconnect"  # of a hub's `auth.jwt.audience`, unless that was changed
WARN_AT = 0.8  # of a token's life: the rest is for whoever has to renew it by hand


@dataclass(frozen=True)
class Claims:
    """Times in Unix seconds; None for what the token lacks, or has in another form."""

    subject: str | None
    audience: tuple[str, ...]
    issued_at: float | None
    not_before: float | None
    expires_at: float | None

    def fault(self, agent_id: str, now: float) -> str:
        """Why a hub will refuse it, in words for whoever runs the agent; "" if nothing is seen."""
        begins = max((one for one in (self.issued_at, self.not_before) if one is not None), default=now)
        if self.expires_at is not None and now >= self.expires_at:
            return f"expired {span(now - self.expires_at)} ago; replace the file"
        if begins > now + 60:  # a hub has some leeway, too
            return f"is not valid for another {span(begins - now)}; is this machine's clock right?"
        if self.subject is not None and self.subject != agent_id:
            return f"is another agent's: its sub is {self.subject}, and agent_id is {agent_id}; they must agree"
        if self.audience and AUDIENCE not in self.audience:
            seen = ", ".join(self.audience)
            return f"is for others: its aud is {seen}; hubs expect {AUDIENCE}, or their auth.jwt.audience"
        return ""

    def ends_soon(self, now: float) -> float | None:
        """Seconds that it still counts, once `WARN_AT` of its life is over; None before."""
        if self.expires_at is None or self.issued_at is None or now >= self.expires_at:
            return None
        life = self.expires_at - self.issued_at
        return self.expires_at - now if now >= self.issued_at + WARN_AT * life else None


def claims_of(token: str) -> Claims | None:
    """None if it is no JWT (RFC 7519)."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        said = orjson.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return None
    if not isinstance(said, dict):
        return None
    audience = said.get("aud")
    return Claims(
        subject=_name(said.get("sub")),
        audience=tuple(filter(None, map(_name, audience if isinstance(audience, list) else [audience]))),
        issued_at=_time(said.get("iat")),
        not_before=_time(said.get("nbf")),
        expires_at=_time(said.get("exp")),
    )


def span(seconds: float) -> str:
    """A duration as people say it: "61 s", "3 h", "12 days"."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.0f} days"


def _time(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**40 else None


def _name(value: Any) -> str | None:
    """A name that may be shown: what stands in a file is not trusted to be printable."""
    return value if isinstance(value, str) and value.isprintable() and 0 < len(value) <= 128 else None
