"""Tunnels whose token counts no longer: judged again when the keys or the rules of `auth.jwt.deny` have changed.

No token is kept for it. What a tunnel was admitted by is the claims, which do not change, and the key that signed them:
whether that key is still in force is asked of the key itself, not of its id, which another key may have by now.
"""

from __future__ import annotations

from collections import deque

from ncfast.core.errors import Reason
from ncfast.hub.ground import Ground
from ncfast.hub.lockout import Lockout
from ncfast.hub.session import AgentSession
from ncfast.hub.sessions import Sessions
from ncfast.hub.tokens import Tokens
from ncfast.observe import log

SLICE = 256  # tunnels judged in one turn of the loop, about 0.5 ms


class Review:
    """Goes through all tunnels, some in each turn of the loop."""

    def __init__(self, ground: Ground, sessions: Sessions, tokens: Tokens, lockout: Lockout) -> None:
        self._ground = ground
        self._sessions = sessions
        self._tokens = tokens
        self._lockout = lockout
        self._left: deque[AgentSession] = deque()

    def begin(self) -> None:
        """There is something new to judge by."""
        if not self._left:
            self._ground.net.call_soon(self._slice)
        self._left = deque(self._sessions)

    def _slice(self) -> None:
        for _ in range(min(SLICE, len(self._left))):
            self._judge(self._left.popleft())
        if self._left:
            self._ground.net.call_soon(self._slice)

    def _judge(self, session: AgentSession) -> None:
        fault = None if session.link.closed else self._tokens.fault(session.identity)
        if fault is None:
            return
        self._ground.stats.auth_failed[fault] += 1
        log.security("auth_failed", reason=fault, agent_id=session.agent_id, remote=session.remote, standing=True)
        if self._tokens.barred(session.identity):
            self._lockout.end(session.key, "auth.jwt.deny names the agent")
        else:  # with another token it may come back, and its flows wait for that
            session.link.fail(Reason.UNAUTHORIZED, "its token counts no longer")
