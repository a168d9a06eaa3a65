"""Runs an agent as a process."""

from __future__ import annotations

import signal
from contextlib import nullcontext
from pathlib import Path

from ncfast.agent.agent import Agent
from ncfast.agent.taking import Heritage
from ncfast.agent.token import token_of
from ncfast.config.agent import AgentConfig
from ncfast.config.exposed import exposed
from ncfast.config.files import Unusable
from ncfast.config.loader import load_agent
from ncfast.config.problems import ConfigError
from ncfast.observe import log, otlp
from ncfast.observe.watchdog import freeze
from ncfast.serve.heir import Heir, summoned
from ncfast.serve.notify import Supervisor
from ncfast.serve.process import Signals, network, prepare, run
from ncfast.serve.stacks import forget_stacks, tell_stacks
from ncfast.serve.upgrade import Upgrading

_log = log.get("serve")


def run_agent(config: AgentConfig, *, config_path: str | Path | None = None, stay: bool = False) -> int:
    """Stays connected until SIGTERM or SIGINT; SIGHUP reads token, log and `otlp` again, SIGUSR2 upgrades, and with
    `stay` the process is the parent of the next one then. Returns the exit code.

    Raises ConfigError when it could serve nobody, Unusable for a certificate, key or token file of no use, and NotOurs.
    """
    descriptor = summoned()
    prepare(config.logging)
    otlp.begin(_wish(config))
    token_of(config.token_file)
    return run(_agent(config, config_path, stay, descriptor))


def _wish(config: AgentConfig) -> otlp.Wish | None:
    if config.otlp is None:
        return None
    from ncfast.serve.collector import wish  # of use to few

    return wish(config.otlp, "ncfast-agent", config.agent_id, config.logging.mask_agents)


async def _agent(config: AgentConfig, path: str | Path | None, stay: bool, descriptor: int | None) -> int:
    net = network()
    heir = Heir(net, descriptor) if descriptor is not None else None
    for text in exposed(config):  # used all the same: that others can read or write them is for the operator to judge
        _log.warning("file_exposed", detail=text)
    if heir is None:
        agent = Agent(config, net)
    else:
        with heir.refusing():
            agent = Agent(config, net, heritage=Heritage.read(await heir.heritage()))
    supervisor = Supervisor(net, silent=heir is not None)
    upgrading = Upgrading(net, agent, lambda: config.upgrade.timeout_sec, heir, stay)

    def refusal() -> str:
        return "the agent is about to end" if agent.ground.stopping.is_set() else ""

    def stop(at_once: bool) -> bool:
        if upgrading.passes(signal.SIGTERM):
            return True
        upgrading.at_once |= at_once
        return agent.stop()

    async def reload() -> None:
        if not await upgrading.reload():
            async with supervisor.reloading():
                await _reload_agent(agent, path)

    def begin_reload() -> None:
        net.spawn(reload(), "reload")

    upgrading.refusal, upgrading.reloads = refusal, begin_reload

    admin = None
    if config.admin is not None:
        from ncfast.agent.admin import Admin  # most agents are asked nothing
        from ncfast.agent.standing import Standing

        admin = Admin(Standing(agent), net, upgrades=upgrading)
        with heir.refusing() if heir is not None else nullcontext():
            await admin.start(config.admin)
    Signals(stop, begin_reload, upgrading.on_signal).install(net.loop)
    tell_stacks(net)
    freeze()
    agent.start()
    if heir is None:
        supervisor.ready()  # a site whose hubs are away is up all the same: it dials until they are there
    else:
        heir.on_main, heir.on_reload, heir.on_stop = supervisor.ready, begin_reload, stop
        heir.take_over(agent)
    if await upgrading.until(agent.ground.stopping):
        supervisor.passes_to(upgrading.pid)
        await upgrading.part()
        if admin is not None:
            admin.close()
        await upgrading.linger()
    else:
        supervisor.stopping()
        await agent.drain()
        if admin is not None:
            admin.close()
    supervisor.close()
    code = upgrading.outcome()
    if code is None:  # while handlers stand: without them a signal would end the process
        await upgrading.stay()
    forget_stacks(net.loop)
    return code


async def _reload_agent(agent: Agent, path: str | Path | None) -> None:
    if path is not None:
        try:
            config = load_agent(path)
            wanted = _wish(config)
        except (ConfigError, Unusable) as exc:
            problems = exc.problems if isinstance(exc, ConfigError) else [exc]
            _log.error(
                "config_refused",
                problems=[str(problem) for problem in problems],
                detail="the old configuration stays",
            )
            return
        log.setup(**config.logging.model_dump())
        otlp.follow(wanted)
    await agent.refresh()
    _log.info("config_reloaded")
