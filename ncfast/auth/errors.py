"""What can go wrong with a token (`AuthError`) and with the set-up that judges tokens (`AuthSetupError`)."""

from __future__ import annotations

from ncfast.core.errors import NcfastError

# Every reason a token can be refused for: metric label and log field ↔ sentence for a person.
# The sentences are constants: nothing that arrived from outside can reach a log through them.
REASONS: dict[str, str] = {
    "malformed": "the token is not a well-formed JWT",
    "too_large": "the token is longer than 8 KiB",
    "header": "the token's header has a parameter that is not accepted",
    "algorithm": "the token's algorithm is not allowed",
    "unknown_key": "no key matches the token",
    "keys_unavailable": "the key source has no usable keys at the moment",
    "signature": "the token's signature is wrong",
    "missing_claim": "a required claim is missing",
    "claim_type": "a claim has the wrong type or is out of range",
    "audience": "the token is meant for another audience",
    "issuer": "the token comes from another issuer",
    "expired": "the token has expired",
    "not_yet_valid": "the token is not valid yet",
    "lifetime": "the token's lifetime is longer than allowed",
    "subject": "the token's subject is not an acceptable agent id",
    "connectors": "the token's connectors claim is not a list of acceptable names",
    "tenant": "the token's tenant is not an acceptable name",
    "confirmation": "the token is bound to something else than a certificate's SHA-256 (cnf without x5t#S256)",
    "certificate_missing": "a client certificate is needed with the token, and none was shown",
    "certificate_mismatch": "the token is bound to another client certificate",
    "certificate_name": "the client certificate does not name the token's agent",
    "denied": "auth.jwt.deny names the token",
}


class AuthError(NcfastError):
    """The remote side offered a token that is refused.

    `reason` is a key of `REASONS`. Neither the reason nor the text carries anything out of the token. Once its
    signature has proved good, `signed` is set: then the bearer may be told why, and the log whose token it is
    (`subject`; None while it is no acceptable name). Who guesses at tokens learns nothing.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(REASONS[reason])
        self.reason = reason
        self.signed = False
        self.subject: str | None = None

    def of(self, subject: str | None) -> AuthError:
        """The same, of a token whose signature is good."""
        self.signed = True
        self.subject = subject
        return self

    @property
    def told(self) -> str:
        """What the bearer is told: nothing unless the signature is good."""
        return str(self) if self.signed else ""


class AuthSetupError(NcfastError):
    """Key, key file, JWKS URL, policy or library is unfit; the text says what the operator can do."""
