"""Keys from an issuer's JWKS URL, kept fresh in the background.

1. Only this object fetches, one fetch at a time; whoever misses a key waits for the fetch under way.
2. A miss causes a fetch at most every 30 s, however many unknown key ids arrive, and a key id that a fetch
   did not bring is not looked for again for 5 min. A miss takes no key away.
3. A fetch replaces the keys as a whole, or, when anything about it is wrong, changes nothing.
4. Keys serve for 24 h after the fetch that brought them; the issuer's absence shows as `healthy` false.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from ncfast.auth.errors import AuthError, AuthSetupError
from ncfast.auth.jwks import parse_jwks
from ncfast.auth.keys import SYMMETRIC, Key, KeySet, check_algorithms
from ncfast.net.backoff import Backoff
from ncfast.net.fetch import FetchError, HttpsFetch
from ncfast.net.seam import Net
from ncfast.observe import log

REFRESH_SEC = (300.0, 600.0)  # drawn anew each time, so that hubs do not ask in step
COOLDOWN_SEC = 30.0  # between fetches that a miss may cause, and between retries
FIRST_RETRY_SEC = 2.0  # and half of it at least; doubling up to the cooldown while no fetch has succeeded yet
STALE_SEC = 24 * 3600.0
ABSENT_SEC = 300.0
MAX_ABSENT = 128

_log = log.get("auth")


class JwksKeys:
    """A key source fed by a JWKS document. Time is the running loop's; `rng` spreads the refreshes.

    `fetch` gives the document's bytes or raises `FetchError`. HS256 among `algorithms` raises `AuthSetupError`.
    """

    def __init__(self, fetch: Callable[[], Awaitable[bytes]], algorithms: Sequence[str], *, rng: random.Random) -> None:
        self._algorithms = check_algorithms(algorithms)
        if SYMMETRIC in self._algorithms:
            raise AuthSetupError(f"auth.jwt.algorithms: {SYMMETRIC} needs a key_file, which no URL gives")
        self._fetch = fetch
        self._rng = rng
        self._first_retries = Backoff(rng, FIRST_RETRY_SEC, COOLDOWN_SEC, floor=0.5)
        self._keys = KeySet([])
        self.on_change: Callable[[], None] = lambda: None  # a fetch has replaced the keys
        self._absent: OrderedDict[tuple[str | None, str], float] = OrderedDict()
        self._fetched_at: float | None = None
        self._failures = 0
        self._tried_at = float("-inf")
        self._due_at = float("-inf")
        self._loop: asyncio.AbstractEventLoop = None  # type: ignore[assignment]  # set by `start`
        self._refresher: asyncio.Task[None] | None = None
        self._attempt: asyncio.Task[None] | None = None

    @classmethod
    def from_url(
        cls, url: str, algorithms: Sequence[str], net: Net, ca_file: Path | None = None, proxy: str = "off"
    ) -> JwksKeys:
        """Fed by `url` over HTTPS, trusting `ca_file` or the system's authorities, through `proxy` ('env', 'off' or
        its URL). Raises `AuthSetupError` for a URL or a file that is of no use."""
        try:
            fetch = HttpsFetch(net, url, ca_file, proxy)
        except ValueError as fault:
            raise AuthSetupError(f"auth.jwt.jwks_url: {fault}") from None
        except OSError as error:
            raise AuthSetupError(f"{ca_file}: no usable CA file: {error.strerror or error}") from None
        return cls(fetch, algorithms, rng=net.rng)

    def start(self) -> None:
        """Begin fetching. Call it once, in the running loop; until a fetch succeeds no token is accepted."""
        self._loop = asyncio.get_running_loop()
        self._refresher = self._loop.create_task(self._keep_fresh(), name="jwks-refresher")

    async def aclose(self) -> None:
        """Stop fetching; whoever waits for a key gets its `AuthError`."""
        tasks = [task for task in (self._refresher, self._attempt) if task is not None]
        self._refresher = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def reload(self) -> None:
        """Fetch soon, on the operator's word, if the last fetch is not too recent."""
        if self._may_fetch():
            self._begin_attempt()

    @property
    def age(self) -> float | None:
        """Seconds since the last successful fetch, None before the first."""
        return None if self._fetched_at is None else self._loop.time() - self._fetched_at

    @property
    def healthy(self) -> bool:
        """Whether the latest fetch succeeded."""
        return self._fetched_at is not None and self._failures == 0

    def holds(self, key: Key) -> bool:
        """Whether a token that this key had signed would still be believed; so it is while there are no keys to tell
        by, for the issuer's absence takes nothing away from tunnels that stand."""
        return not self._usable() or self._keys.holds(key)

    async def find(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        """The keys that may have signed a token; raises `AuthError` if there is none, even after a fetch."""
        found = self._held(kid, algorithm)
        if not found and (self._attempt or self._may_fetch()) and not self._known_absent(kid, algorithm):
            await asyncio.wait({self._begin_attempt()})  # not `await`: our cancellation must not reach it
            found = self._held(kid, algorithm)
            if not found and self.healthy:
                self._note_absent(kid, algorithm)
        if not found:
            raise AuthError("unknown_key" if self._usable() else "keys_unavailable")
        return found

    def _held(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        return self._keys.find(kid, algorithm) if self._usable() else ()

    def _usable(self) -> bool:
        return self.age is not None and self.age <= STALE_SEC

    def _known_absent(self, kid: str | None, algorithm: str) -> bool:
        return self._absent.get((kid, algorithm), float("-inf")) > self._loop.time()

    def _note_absent(self, kid: str | None, algorithm: str) -> None:
        self._absent[kid, algorithm] = self._loop.time() + ABSENT_SEC
        self._absent.move_to_end((kid, algorithm))
        if len(self._absent) > MAX_ABSENT:
            self._absent.popitem(last=False)

    def _may_fetch(self) -> bool:
        return self._refresher is not None and self._loop.time() - self._tried_at >= COOLDOWN_SEC

    async def _keep_fresh(self) -> None:
        while True:
            wait = self._due_at - self._loop.time()  # moved on, if a miss has caused a fetch meanwhile
            if wait > 0:
                await asyncio.sleep(wait)
            else:
                await asyncio.wait({self._begin_attempt()})

    def _begin_attempt(self) -> asyncio.Task[None]:
        """The fetch under way, or a new one."""
        if self._attempt is None:
            self._tried_at = self._loop.time()
            self._attempt = self._loop.create_task(self._refresh(), name="jwks-fetch")
        return self._attempt

    async def _refresh(self) -> None:
        try:
            document = await self._fetch()
            jwks = parse_jwks(document, self._algorithms)
            keys = KeySet(jwks.keys)
        except (FetchError, AuthSetupError) as fault:
            self._failures += 1
            _log.warning("jwks_refresh_failed", error=str(fault), attempt=self._failures)
        else:
            self._keys, self._fetched_at, self._failures = keys, self._loop.time(), 0
            _log.info("jwks_refreshed", keys=len(keys), refused=jwks.faults)
            self.on_change()
        finally:
            self._attempt = None
            self._due_at = self._loop.time() + self._pause()

    def _pause(self) -> float:
        """Seconds until the next background fetch."""
        if self._failures == 0:
            return self._rng.uniform(*REFRESH_SEC)
        if self._fetched_at is None:
            return self._first_retries.next()
        return self._rng.uniform(COOLDOWN_SEC, 2 * COOLDOWN_SEC)
