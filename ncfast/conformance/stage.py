"""What a scenario is played on: tunnels, flows, a key and its tokens; and what all steps have in common."""

from __future__ import annotations

import secrets
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ncfast._frames import FrameType
from ncfast.conformance.broken import Broken
from ncfast.conformance.farside import FarSide
from ncfast.conformance.flow import Flow
from ncfast.conformance.referee import ACKNOWLEDGES, Referee
from ncfast.conformance.scenario import Scenario, ScenarioError, read
from ncfast.conformance.tunnel import Frame, Tunnel
from ncfast.core.errors import Reason

AGENT, CONNECTOR = "agent-1", "service"
SAID = ("seq", "ack", "limit", "epoch", "flags")  # of a step: what its frame says instead of what is right
F = FrameType

Places = dict[str, str]  # what stands for {name} in a command, and in the environment as CONFORMANCE_NAME


@dataclass
class Launched:
    """The program under test: its last lines, and what asks it to stop in order."""

    lines: deque[str] = field(default_factory=deque)
    stop: Callable[[], None] = lambda: None


Launch = Callable[[Places], AbstractAsyncContextManager[Launched]]


class Stage:
    """One scenario, and the step that it is at."""

    OPTIONAL: ClassVar[tuple[str, ...]]  # features that the program may lack
    SCENARIOS: ClassVar[str]  # the file of those that come with the package
    BROKEN: ClassVar[str]  # the rule of a step that names none

    def __init__(self, scenario: Scenario, directory: Path, patience: float) -> None:
        self.scenario = scenario
        self.patience = patience
        self.program = Launched()
        self._directory = directory
        self._key = secrets.token_bytes(32)
        self._epoch = 0  # the highest granted, or told of
        self._flows: dict[bytes, Flow] = {}
        self._named: dict[str, Flow] = {}
        self._referee = self._referees(self._flows)
        self._tunnels: dict[str, Tunnel] = {}
        self._tunnel: Tunnel | None = None
        self._step: dict[str, Any] = {}

    @classmethod
    def scenarios(cls, path: Path | None = None) -> list[Scenario]:
        """Those that come with the package, or of a file. Raises ScenarioError."""
        return read(cls.SCENARIOS, cls.OPTIONAL, path)

    @staticmethod
    @abstractmethod
    def _referees(flows: dict[bytes, Flow]) -> Referee:
        """Who judges."""

    @property
    @abstractmethod
    def places(self) -> Places:
        """What the program under test is told, once it has started."""

    @abstractmethod
    async def start(self) -> None:
        """Everything stands that the program needs."""

    def close(self) -> None:
        """Ends everything."""
        for tunnel in self._tunnels.values():
            tunnel.cut()

    # what steps have in common

    @property
    def _rule(self) -> str:
        return self._step.get("rule", self.BROKEN)

    def _look(self) -> None:
        """Raises what a tunnel has found."""
        for tunnel in self._tunnels.values():
            if tunnel.broken is not None:
                raise tunnel.broken

    def _on(self, step: dict[str, Any]) -> Tunnel:
        """The tunnel of a step: `owner` or `standby` as it says, or the last that was spoken of."""
        if "on" in step:
            self._tunnel = self._tunnels[step["on"]]
        if self._tunnel is None:
            raise ScenarioError(f"{self.scenario.name}: no tunnel stands at {step}")
        return self._tunnel

    def _flow(self, step: dict[str, Any]) -> Flow:
        """The flow of a step: the one it names, or `f`."""
        name = step.get("flow", "f")
        if name not in self._named:
            self._named[name] = flow = Flow(name)
            self._flows[flow.cid] = flow
        return self._named[name]

    def _far(self, step: dict[str, Any]) -> FarSide:
        far = self._flow(step).far
        if far is None:
            raise ScenarioError(f"{self.scenario.name}: nobody is at the far side at {step}")
        return far

    async def _next(self, tunnel: Tunnel, wanted: Callable[[Frame], bool]) -> Frame:
        """The first frame that is wanted; those before it are passed over."""
        while True:
            while tunnel.frames:
                frame = tunnel.frames.pop(0)
                if wanted(frame):
                    return frame
            self._look()
            if tunnel.ended:
                raise Broken(self._rule, f"the tunnel has ended (close code {tunnel.close_code})")
            tunnel.changed.clear()
            await tunnel.changed.wait()

    async def _until(self, flow: Flow, tunnel: Tunnel, condition: Callable[[], bool]) -> None:
        """Frames are judged, and passed over, until the condition holds; not beyond the flow's end."""
        while not condition():
            frame = await self._next(tunnel, lambda one: True)
            if frame.type == F.M_RST and frame.cid == flow.cid and not condition():
                raise Broken(self._rule, f"the flow has ended by M_RST {reason_name(frame.code)}")

    def _say(self, tunnel: Tunnel, type: FrameType, flow: Flow, step: dict[str, Any], **fields: Any) -> None:
        """A frame of a flow, with what the step says otherwise."""
        fields = {"epoch": tunnel.epoch, "cid": flow.cid, **fields}
        if type in ACKNOWLEDGES:
            fields = {"ack": flow.ack, "limit": flow.limit, **fields}
        for name in SAID:
            if name in step:
                fields[name] = step[name]
        if "older" in step:
            fields["epoch"] = tunnel.epoch - step["older"]
        flow.limit = max(flow.limit, fields.get("limit", 0))
        tunnel.frame(type, **fields)


def code_of(reason: str | int) -> int:
    """By its name in section 12, or a number as it is."""
    return reason if isinstance(reason, int) else Reason[reason.upper()]


def reason_name(code: int) -> str:
    """As section 12 names it; unknown ones by their number."""
    return Reason(code).label if code in Reason.__members__.values() else str(code)
