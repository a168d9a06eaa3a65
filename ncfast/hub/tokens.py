"""Which tokens count: the keys in force, the verifier that uses them, and how long an expired token is borne."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ncfast.auth import AuthError, ClientCertificate, Identity, StaticKeys, Verifier, bars, denied
from ncfast.config.hub import Jwt
from ncfast.net.seam import Net

if TYPE_CHECKING:
    from ncfast.auth.remote import JwksKeys


def key_source(jwt: Jwt, net: Net) -> StaticKeys | JwksKeys:
    """The keys that the configuration names. Raises AuthSetupError."""
    if jwt.jwks_url is not None:
        from ncfast.auth.remote import JwksKeys  # heavy, and of use only here

        return JwksKeys.from_url(jwt.jwks_url, jwt.algorithms, net, jwt.jwks_ca_file, jwt.jwks_proxy)
    assert jwt.key_file is not None  # one of the two is there
    return StaticKeys.from_file(jwt.key_file, jwt.algorithms)


def _source(jwt: Jwt) -> tuple[object, ...]:
    """Where an issuer's keys come from, and which of them are ours."""
    return jwt.jwks_url, jwt.jwks_ca_file, jwt.jwks_proxy, jwt.algorithms


class Tokens:
    """Raises AuthSetupError for keys that cannot be used."""

    def __init__(self, jwt: Jwt, net: Net, wall_clock: Callable[[], float]) -> None:
        self._net = net
        self._wall_clock = wall_clock
        self.on_change: Callable[[], None] = lambda: None  # other keys or rules are in force: `fault` may say more
        self._keys = key_source(jwt, net)
        self._take(jwt)

    def _take(self, jwt: Jwt) -> None:
        self._jwt = jwt
        self._verifier = Verifier(jwt, self._keys, self._wall_clock)
        self.expiry_grace = jwt.expiry_grace_sec  # seconds
        self._keys.on_change = lambda: self.on_change()

    async def verify(self, token: str, certificate: ClientCertificate | None = None) -> Identity:
        """Who the token says the bearer is, who has shown `certificate`, or none. Raises AuthError."""
        identity = await self._verifier.verify(token, certificate)
        if denied(self._jwt.deny, identity) is not None:
            raise AuthError("denied").of(identity.agent_id)
        return identity

    def fault(self, identity: Identity) -> str | None:
        """Why a token that was believed is so no longer, as `AuthError.reason` has it; None while it counts. Expiry is
        not looked at."""
        if denied(self._jwt.deny, identity) is not None:
            return "denied"
        if identity.signed_by is not None and not self._keys.holds(identity.signed_by):
            return "unknown_key"
        return None

    def barred(self, identity: Identity) -> bool:
        """Whether the rules deny the agent, and not only the token that it has shown."""
        return any(bars(rule) for rule in self._jwt.deny if denied((rule,), identity) is not None)

    @property
    def healthy(self) -> bool:
        """Whether the keys are fresh."""
        return self._keys.healthy

    def start(self) -> None:
        """Begins to keep the keys fresh."""
        self._keys.start()

    async def aclose(self) -> None:
        await self._keys.aclose()

    def prepare(self, jwt: Jwt) -> StaticKeys | JwksKeys | None:
        """The keys that `use` would put in force; None: those of now, asked for anew. Raises AuthSetupError."""
        same = jwt.jwks_url is not None and _source(jwt) == _source(self._jwt)
        return None if same else key_source(jwt, self._net)

    async def use(self, jwt: Jwt, keys: StaticKeys | JwksKeys | None) -> None:
        """Tokens are judged by these from now on; of tunnels that stand `fault` says which do not."""
        old = self._keys
        if keys is None:
            old.reload()
        else:
            self._keys = keys
            keys.start()
        self._take(jwt)
        if keys is not None:
            await old.aclose()
        self.on_change()
