"""The sections that a hub's file and an agent's file share.

Each key is declared once, by :func:`key`, with its unit, bounds and reason; ``docs/configuration.md`` and the
JSON Schema are generated from here. Models are frozen: a reload makes a new one.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ncfast.config.values import Address, Bytes, Count, FilePath, Seconds, fault

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def key(default: Any = ..., *, why: str, unit: str = "", **more: Any) -> Any:
    """One configuration key. ``why``: what it does, and the default's reason. ``unit``: what it counts."""
    extra: dict[str, Any] = {"x-unit": unit} if unit else {}
    if isinstance(default, Address):
        extra["default"] = str(default)
    if "default_factory" not in more:
        more["default"] = default
    return Field(description=why, json_schema_extra=extra, **more)


def section(*, why: str) -> Any:
    """A section that has its defaults where a file leaves it out. They are validated with the rest, not made by the
    class, which would build a validator for that section alone."""
    return Field(default_factory=dict, validate_default=True, description=why, json_schema_extra={})


class Section(BaseModel):
    """What every section has in common: unknown keys are errors, and nothing changes after loading. A validator is
    built when it is first asked for: mostly that is one for the whole file, and none for each section besides."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True, defer_build=True
    )


class FlowConfig(Section):
    """Timers and windows of one flow (one client connection, end to end)."""

    grace_sec: Seconds = key(
        30,
        ge=0,
        le=3600,
        alias="flow_grace_sec",
        unit="s",
        why=(
            "How long a flow whose tunnel was cut waits for the agent to come back, its bytes kept, before it"
            " is reset. 30 s covers a proxy restart and a few reconnect attempts; 0 resets at once."
        ),
    )
    open_timeout_sec: Seconds = key(
        10,
        gt=0,
        le=300,
        unit="s",
        why=(
            "How long an open may wait for the target to answer, or for a way when it has lost its own, before the"
            " client is closed. Longer than the loss of a tunnel takes to be noticed."
        ),
    )
    half_close_sec: Seconds = key(
        300,
        gt=0,
        le=86400,
        unit="s",
        why=(
            "How long whoever has been told the other side's end, and has taken all that came before it, may say"
            " nothing before the flow is reset; a lost FIN would keep it for ever otherwise. 5 minutes, as yamux has"
            " it."
        ),
    )
    stall_sec: Seconds = key(
        30,
        ge=0,
        le=3600,
        unit="s",
        why=(
            "How long a flow may have bytes to send and window to send them, and yet none accepted, before it"
            " is reset (pings pass, data does not). A reader that is merely slow is not a stall. 0 turns it"
            " off."
        ),
    )
    notsent_lowat: Bytes = key(
        128 * KIB,
        ge=4 * KIB,
        le=16 * MIB,
        unit="bytes",
        why=(
            "TCP_NOTSENT_LOWAT of a client's and a target's socket: unsent bytes the kernel may hold for a reader that"
            " pauses, beside the budget; without it megabytes for each. What is on its way does not count."
        ),
    )
    reader_pause_sec: Seconds = key(
        0,
        ge=0,
        le=86400,
        unit="s",
        why=(
            "How long a client or target for which bytes wait may take none of them before its flow is ended. 0: as"
            " long as its machine answers the kernel's probes, as on a direct connection; what waits for it counts in"
            " limits.memory_bytes, also when the flow is over."
        ),
    )
    window_initial: Bytes = key(
        256 * KIB,
        ge=64 * KIB,
        le=GIB,
        unit="bytes",
        why=(
            "What a new flow's far end may send before it is granted more; less where many flows share "
            "limits.memory_bytes."
        ),
    )
    window_max: Bytes = key(
        16 * MIB,
        ge=16 * KIB,
        le=GIB,
        unit="bytes",
        why=(
            "How far a flow's window may grow with its measured bandwidth-delay product. "
            "16 MiB fills 1 Gbit/s at 130 ms."
        ),
    )

    @model_validator(mode="after")
    def _initial_fits(self) -> FlowConfig:
        if self.window_initial > self.window_max:
            raise fault(
                "window_initial is larger than window_max",
                f"make it at most {self.window_max}, or raise window_max",
                "window_initial",
                "window_max",
            )
        return self


class Tunnel(Section):
    """One tunnel (the WebSocket session between an agent and a hub), the same at both ends."""

    ping_interval_sec: Seconds = key(
        2,
        ge=0.05,
        le=300,
        unit="s",
        why="How often a PING measures the round trip and keeps middleboxes awake.",
    )
    ping_timeout_sec: Seconds = key(
        5,
        ge=0.1,
        le=900,
        unit="s",
        why=(
            "After this long without a single byte from the far end the tunnel is dead. More than two intervals, so"
            " that one lost round trip is not a death; well below open_timeout_sec and hold_sec, so that clients wait"
            " for what comes after it."
        ),
    )
    per_link_max_inflight_bytes: Bytes = key(
        8 * MIB,
        ge=64 * KIB,
        le=4 * GIB,
        unit="bytes",
        why=(
            "Bytes sent on the tunnel and not yet acknowledged, over all its flows; at the bound its sources"
            " are paused."
        ),
    )
    send_queue_depth: Count = key(
        1000,
        ge=16,
        le=1_000_000,
        unit="frames",
        why=(
            "Frames of the tunnel itself, and answers to unknown flows, that may wait for a peer that does not "
            "read. Beyond it the first end the tunnel and the second are dropped. A flow's own frames coalesce "
            "and are bounded by its window."
        ),
    )
    max_message_bytes: Bytes = key(
        MIB,
        ge=256 * KIB,
        le=16 * MIB,
        unit="bytes",
        why=(
            "The largest WebSocket message accepted; a longer one is refused at its header, before it is"
            " buffered (close code 1009)."
        ),
    )
    notsent_lowat: Bytes = key(
        128 * KIB,
        ge=4 * KIB,
        le=16 * MIB,
        unit="bytes",
        why=(
            "TCP_NOTSENT_LOWAT of the tunnel's socket: unsent bytes the kernel may hold. Small keeps a short"
            " message from queueing behind a bulk copy."
        ),
    )

    @model_validator(mode="after")
    def _timeout_outlasts_interval(self) -> Tunnel:
        if self.ping_timeout_sec <= self.ping_interval_sec:
            raise fault(
                "ping_timeout_sec must be longer than ping_interval_sec, or every tunnel dies of its own ping",
                f"make it {3 * self.ping_interval_sec:g}, three intervals",
                "ping_timeout_sec",
                "ping_interval_sec",
            )
        return self


class Drain(Section):
    """The orderly end, on SIGTERM."""

    timeout_sec: Seconds = key(
        30,
        ge=0,
        le=86400,
        unit="s",
        why=(
            "How long running flows may finish before they are reset and the process exits 0. Keep it below"
            " the orchestrator's kill delay; 0 does not wait."
        ),
    )


class Upgrade(Section):
    """Handing over to a new process, on SIGUSR2, or by `ncfast upgrade`."""

    timeout_sec: Seconds = key(
        30,
        ge=1,
        le=3600,
        unit="s",
        why=(
            "How long the new process may take to load, read its configuration and be ready. When it does not, it is"
            " ended, and the old one goes on as if nothing had been."
        ),
    )


class Logging(Section):
    """Log lines on standard error. Takes effect on reload (SIGHUP)."""

    level: Literal["debug", "info", "warning", "error"] = key("info", why="The least severe level that is written.")
    format: Literal["auto", "json", "console"] = key(
        "auto",
        why=(
            "json: one object a line. console: readable. auto: what NC_LOG_FORMAT in the environment says, "
            "otherwise console on a terminal and json elsewhere."
        ),
    )
    mask: Literal["none", "truncate", "hash"] = key(
        "truncate",
        why=(
            "How client addresses appear: whole, cut short (203.0.113.0/24), or as a keyed hash that is stable"
            " while the process lives."
        ),
    )
    mask_agents: Literal["none", "truncate", "hash"] = key(
        "none",
        why=(
            "The same for agent ids and the subjects of tokens in log lines. The status edge always shows them whole:"
            " whoever is on call has to know which site it is."
        ),
    )


class EndLimits(Section):
    """Bounds on what one process holds."""

    max_flows: Count = key(
        20_000, ge=1, le=10_000_000, unit="flows", why="Flows at once; then new ones are refused and counted."
    )
    memory_bytes: Bytes = key(
        GIB,
        ge=16 * MIB,
        le=1024 * GIB,
        unit="bytes",
        why=(
            "The byte budget for everything that waits: replay segments, receive buffers, queues. Each listener, or"
            " connector of an agent, has a share. At its bound new flows are refused and reading pauses; when the"
            " budget is spent all the same, the share that has borrowed most loses the flow that holds most."
        ),
    )


class CertifiedTls(Section):
    """A certificate and its key, both or neither."""

    cert_file: FilePath | None = key(None, why="Certificate chain, PEM, the own certificate first.")
    key_file: FilePath | None = key(None, why="Private key of cert_file, PEM, without a passphrase.")

    @model_validator(mode="after")
    def _both_or_neither(self) -> CertifiedTls:
        if self.cert_file and not self.key_file:
            raise fault("cert_file without key_file", "name the certificate's private key", "cert_file", "key_file")
        if self.key_file and not self.cert_file:
            raise fault("key_file without cert_file", "name the certificate of this key", "key_file", "cert_file")
        return self


class ClientTls(CertifiedTls):
    """TLS as a client. Files that are replaced are taken for the next connection."""

    ca_file: FilePath | None = key(None, why="CA bundle to trust instead of the system's, PEM.")
