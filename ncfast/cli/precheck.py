"""The way tried before anything runs, as a table for people: `ncfast check --connect`, `ncfast agent --dry-run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ncfast.cli.exitcode import ExitCode
from ncfast.cli.table import table, text

if TYPE_CHECKING:
    from ncfast.config.agent import AgentConfig
    from ncfast.config.hub import HubConfig, Jwt
    from ncfast.observe.findings import Findings


def try_agent(config: AgentConfig) -> int:
    """Prints what came of each step; the exit code says whether all went well."""
    from ncfast.agent.precheck import precheck
    from ncfast.serve.process import network, prepare, run

    async def main() -> int:
        return _shown(await precheck(config, network()))

    prepare(config.logging.model_copy(update={"level": "error"}))  # what there is to say is in the table
    return run(main())


def try_hub(config: HubConfig, jwt: Jwt) -> int:
    """The same for a hub."""
    from ncfast.hub.precheck import precheck
    from ncfast.serve.process import network, prepare, run

    async def main() -> int:
        return _shown(await precheck(config, jwt, network()))

    prepare(config.logging.model_copy(update={"level": "error"}))
    return run(main())


def _shown(findings: Findings) -> int:
    rows = [(row.subject, row.step, row.verdict.value, row.detail or None) for row in findings.rows]
    print("\n".join(table(("WHAT", "STEP", "RESULT", "DETAIL"), rows)))
    for row in findings.rows:
        if row.remedy:
            print(f"\n{text(row.subject)}, {row.step}: {text(row.detail)}\n  {text(row.remedy)}")
    return ExitCode.OK if findings.well else ExitCode.FAILURE
