"""The registry of a hub without Redis."""

from __future__ import annotations

import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st

from ncfast.observe.stats import Stats
from ncfast.registry.memory import MemoryRegistry
from registry.hubs import replica, run

CLAIMS = st.lists(
    st.tuples(st.sampled_from(["/a", "/b"]), st.sampled_from(["hub-1", "hub-2"]), st.integers(0, 50)), max_size=30
)


def make(net, wall_clock=time.time):
    return MemoryRegistry(replica("hub-1"), net, Stats(), wall_clock)


@given(CLAIMS)
def test_epochs_only_grow_and_the_newest_claim_owns(claims):
    async def main(net):
        registry = make(net)
        last = {}
        for key, owner, remembered in claims:
            epoch = await registry.claim_ownership(key, owner, at_least=remembered)
            assert epoch > last.get(key, 0) and epoch > remembered
            assert await registry.get_owner(key) == (owner, epoch)
            last[key] = epoch
        await registry.aclose()

    run(main)


def test_agents_have_their_own_epochs():
    async def main(net):
        registry = make(net)
        for _ in range(5):
            await registry.claim_ownership("/a", "hub-1")
        assert await registry.claim_ownership("/b", "hub-1") == 1

    run(main)


def test_release_keeps_the_epoch_and_spares_the_next_owner():
    async def main(net):
        registry = make(net)
        first = await registry.claim_ownership("/a", "hub-1", at_least=41)
        second = await registry.claim_ownership("/a", "hub-1")
        await registry.release("/a", first)
        assert await registry.get_owner("/a") == ("hub-1", second)
        await registry.release("/a", second)
        assert await registry.get_owner("/a") is None
        await registry.release("/x", 1)
        assert await registry.claim_ownership("/a", "hub-1") == second + 1

    run(main)


def test_view_and_callbacks():
    async def main(net):
        registry, told, hubs = make(net), [], []
        registry.on_agents, registry.on_replicas = told.extend, lambda: hubs.append(dict(registry.view.replicas))
        await registry.start()
        epoch = await registry.claim_ownership("acme/a", "hub-1", instance="aa", connectors=["ldap"], window=7)
        assert registry.view.fresh and registry.is_healthy()
        (entry,) = registry.view.routes("acme", "ldap")
        assert (entry.epoch, entry.tenant, entry.agent_id, entry.window) == (epoch, "acme", "a", 7)
        assert not told  # not from within what has changed
        await asyncio.sleep(0)
        assert told == ["acme/a"] and set(hubs[0]) == {"hub-1"}
        await registry.add_connectors("acme/a", ["sql"], epoch=epoch - 1)
        assert registry.view.routes("acme", "ldap")
        await registry.add_connectors("acme/a", ["sql"], epoch=epoch)
        assert not registry.view.routes("acme", "ldap") and await registry.list_agents("sql", "acme")
        await registry.set_draining()
        assert not registry.view.routes("acme", "sql")
        assert registry.snapshot()["kind"] == "memory"
        await registry.aclose()
        assert not registry.view.agents

    run(main)
