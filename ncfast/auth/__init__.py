"""Who may open a tunnel: tokens, the keys that verify them, and the identities they prove.

Keys by URL are `ncfast.auth.remote`'s: who has none does not load what fetches and reads them.
"""

from ncfast.auth.certificate import ClientCertificate, thumbprint
from ncfast.auth.deny import bars, denied
from ncfast.auth.errors import REASONS, AuthError, AuthSetupError
from ncfast.auth.identity import Identity
from ncfast.auth.keys import ALGORITHMS
from ncfast.auth.mint import mint
from ncfast.auth.static import StaticKeys, read_secret
from ncfast.auth.verifier import Verifier

__all__ = [
    "ALGORITHMS",
    "REASONS",
    "AuthError",
    "AuthSetupError",
    "ClientCertificate",
    "Identity",
    "StaticKeys",
    "Verifier",
    "bars",
    "denied",
    "mint",
    "read_secret",
    "thumbprint",
]
