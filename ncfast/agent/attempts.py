"""Dials, with the token as it is now; those that fail are counted and told, and say what the next pause is to be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ncfast.agent.counts import Failure
from ncfast.agent.dialer import REFUSED, DialError, dial
from ncfast.agent.ground import Ground
from ncfast.agent.token import OwnToken, TokenFault
from ncfast.agent.tunnel import AgentTunnel
from ncfast.net.backoff import Backoff
from ncfast.observe import log

_log = log.get("agent")


class Attempts:
    """`on_answer` is called where somebody has answered, be it by a refusal."""

    def __init__(self, ground: Ground, token: OwnToken, on_answer: Callable[[], None]) -> None:
        self._ground = ground
        self._token = token
        self._on_answer = on_answer

    async def make(self, tunnel: AgentTunnel, role: str, pause: Backoff) -> bool:
        """Whether a hub has answered the handshake, so that the tunnel may say HELLO."""
        url = tunnel.url
        try:
            tunnel.token = await self._token.read()
            await dial(self._ground, url, tunnel.token, tunnel)
        except asyncio.CancelledError:
            tunnel.abandon()  # it may have come about just now
            raise
        except DialError as exc:
            tunnel.abandon()
            pause.least = exc.retry_after or 0.0
            if exc.reason != REFUSED:
                self._on_answer()
            seen = self._token.fault if exc.reason == "http_401" else ""
            detail = f"{exc}; the token in {self._ground.config.token_file} {seen}" if seen else str(exc)
            self._failed(url, role, exc.reason)
            _log.warning("connect_failed", hub=url, role=role, reason=exc.reason, detail=detail)
        except TokenFault as exc:
            tunnel.abandon()
            self._failed(url, role, "token_file")
            _log.warning("connect_failed", hub=url, role=role, reason="token_file", detail=str(exc))
        except Exception:  # a defect must not leave the agent alive and away for ever
            tunnel.abandon()
            self._failed(url, role, "internal")
            _log.exception("connect_failed", hub=url, role=role, reason="internal")
        else:
            self._on_answer()
            return True
        return False

    def _failed(self, url: str, role: str, reason: str) -> None:
        self._ground.counts.dial_failed(Failure(url, role, reason, self._ground.clock()))
