"""Runs an agent as a process."""

from __future__ import annotations

from pathlib import Path

from ncfast.agent.agent import Agent
from ncfast.agent.token import token_of
from ncfast.config.agent import AgentConfig
from ncfast.config.exposed import exposed
from ncfast.config.loader import load_agent
from ncfast.config.problems import ConfigError
from ncfast.observe import log
from ncfast.observe.watchdog import freeze
from ncfast.serve.notify import Supervisor
from ncfast.serve.process import EXIT_OK, Signals, network, prepare, run
from ncfast.serve.stacks import forget_stacks, tell_stacks

_log = log.get("serve")


def run_agent(config: AgentConfig, *, config_path: str | Path | None = None) -> int:
    """Stays connected until SIGTERM or SIGINT; SIGHUP reads token and log settings again. Returns the exit code.

    Raises ConfigError when it could serve nobody, and Unusable for a certificate, key or token file of no use.
    """
    prepare(config.logging)
    token_of(config.token_file)
    return run(_agent(config, config_path))


async def _agent(config: AgentConfig, path: str | Path | None) -> int:
    net = network()
    for text in exposed(config):  # used all the same: that others can read or write them is for the operator to judge
        _log.warning("file_exposed", detail=text)
    agent = Agent(config, net)
    supervisor = Supervisor(net)

    def stop(at_once: bool) -> bool:
        supervisor.stopping()
        return agent.stop()

    async def reload() -> None:
        with supervisor.reloading():
            await _reload_agent(agent, path)

    admin = None
    if config.admin is not None:
        from ncfast.agent.admin import Admin  # most agents are asked nothing
        from ncfast.agent.standing import Standing

        admin = Admin(Standing(agent), net)
        await admin.start(config.admin)
    Signals(stop, lambda: net.spawn(reload(), "reload"), lambda: None).install(net.loop)
    tell_stacks(net)
    freeze()
    supervisor.ready()  # a site whose hubs are away is up all the same: it dials until they are there
    await agent.run()
    if admin is not None:
        admin.close()
    supervisor.close()
    forget_stacks(net.loop)
    return EXIT_OK


async def _reload_agent(agent: Agent, path: str | Path | None) -> None:
    if path is not None:
        try:
            config = load_agent(path)
        except ConfigError as exc:
            _log.error(
                "config_refused",
                problems=[str(problem) for problem in exc.problems],
                detail="the old configuration stays",
            )
            return
        log.setup(**config.logging.model_dump())
    await agent.refresh()
    _log.info("config_reloaded")
