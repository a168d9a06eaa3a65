"""A new configuration for a hub that runs: what is taken over, and that nothing is if something cannot be."""

from __future__ import annotations

import pytest
from support.tokens import SECRET

from hub import doors as d
from hub.rooms import hub_config, listener
from ncfast.auth import AuthSetupError
from ncfast.auth.mint import mint
from ncfast.config.hub import HubConfig, Listener, ServerTls
from ncfast.config.values import Address
from ncfast.hub import reload as module
from ncfast.observe.log import Logger
from ncfast.observe.readiness import State

OTHER = b"another secret of more than 32 bytes"


def play(tmp_path, scene, mode="off"):
    """`scene(hub)` of a hub that has one listener, `in`."""

    async def main():
        async with d.doors(tmp_path, mode) as hub:
            hub.ground.config = config(hub, listener())
            await hub.apply(hub.ground.config)
            assert list(hub.listeners) == ["in"]
            await scene(hub)

    d.run(main)


def config(hub: d.Doors, *listeners: Listener, mode: str | None = None, **sections) -> HubConfig:
    """As the hub's, with these listeners."""
    return hub_config(mode or hub.ground.mode, edge={"bind": "127.0.0.1:0"}, **sections).model_copy(
        update={"listeners": list(listeners)}
    )


async def client(hub: d.Doors, address: str):
    before = len(hub.clients)
    _, writer = await d.dial(address)
    await d.until(lambda: len(hub.clients) > before, "let in")
    return writer


def in_use(hub: d.Doors, name: str = "taken") -> Listener:
    """Whose port somebody else has."""
    return listener(name, bind=hub.blocker.address)


async def block(hub: d.Doors) -> None:
    hub.blocker = hub.make_listener(listener("blocker"))
    await hub.blocker.open()


# listeners


def test_listeners_come_change_and_go_and_no_flow_is_touched(tmp_path):
    async def scene(hub):
        old = hub.listeners["in"]
        writer = await client(hub, old.address)
        await hub.apply(config(hub, listener(idle_timeout_sec=5), listener("more", connector="ssh")))
        assert hub.listeners["in"] is old and old.timeouts.idle == 5 and hub.clients[0].timeouts.idle == 3600
        more = hub.listeners["more"]
        other = await client(hub, more.address)
        assert hub.clients[1].key == (None, "ssh")
        await hub.apply(config(hub, listener("more", connector="ssh")))
        assert hub.listeners == {"more": more} and not old.bound
        with pytest.raises(OSError):
            await d.dial(old.address)
        for one in (writer, other):
            one.write(b"still here")
        await d.until(lambda: hub.received() == 20, "both flows go on")
        writer.close()
        other.close()

    play(tmp_path, scene)


def test_a_port_in_use_leaves_the_old_configuration_in_force(tmp_path):
    async def scene(hub):
        await block(hub)
        before, listeners = hub.ground.config, dict(hub.listeners)
        fresh = listener("fresh")
        made, make = [], hub.reload._make_listener
        hub.reload._make_listener = lambda config: made.append(make(config)) or made[-1]
        with pytest.raises(OSError, match="cannot listen on"):
            await hub.apply(config(hub, listener(idle_timeout_sec=5), fresh, in_use(hub), mode="off"))
        assert hub.ground.config is before and hub.listeners == listeners
        assert hub.listeners["in"].bound and hub.listeners["in"].timeouts.idle == 3600
        assert [one.bound for one in made] == [False, False], "what was opened on the way is closed again"
        (await client(hub, hub.listeners["in"].address)).close()
        hub.blocker.close()
        await hub.apply(config(hub, listener(), fresh, in_use(hub)))
        assert sorted(hub.listeners) == ["fresh", "in", "taken"]

    play(tmp_path, scene)


def test_a_listener_may_take_the_port_of_one_that_goes(tmp_path):
    async def scene(hub):
        old = hub.listeners["in"]
        address = old.address
        old.config = old.config.model_copy(update={"bind": Address("127.0.0.1", d.port(address))})
        await hub.apply(config(hub, listener("renamed", bind=address)))
        assert list(hub.listeners) == ["renamed"] and hub.listeners["renamed"].address == address
        (await client(hub, address)).close()

    play(tmp_path, scene)


def test_a_port_that_is_lost_while_it_is_handed_over_is_tried_again_by_the_next_reload(tmp_path):
    async def scene(hub):
        await block(hub)
        old = hub.listeners["in"]
        old.config = old.config.model_copy(update={"bind": in_use(hub).bind})  # it held the port, and then did not
        await hub.apply(config(hub, in_use(hub, "renamed")))
        assert not hub.listeners["renamed"].bound
        hub.blocker.close()
        await hub.apply(config(hub, in_use(hub, "renamed")))
        assert hub.listeners["renamed"].bound

    play(tmp_path, scene)


# keys, certificates, mode


def test_new_keys_count_for_tokens_from_now_on(tmp_path):
    async def scene(hub):
        old, new = (mint(secret, "site", None, now=hub.wall()) for secret in (SECRET, OTHER))
        await hub.apply(hub.ground.config, d.key(tmp_path, OTHER, "new"))
        assert (await hub.tokens.verify(new)).agent_id == "site"
        with pytest.raises(Exception, match="signature"):
            await hub.tokens.verify(old)

    play(tmp_path, scene)


@pytest.mark.parametrize("broken", ["keys", "certificate", "mesh"])
def test_what_cannot_be_used_leaves_the_old_configuration_in_force(tmp_path, broken):
    async def scene(hub):
        before, listeners = hub.ground.config, dict(hub.listeners)
        new, jwt = config(hub, listener(), listener("more")), None
        if broken == "keys":
            jwt = d.key(tmp_path, b"short", "broken")
        elif broken == "certificate":
            tls = ServerTls.model_construct(
                cert_file=tmp_path / "none", key_file=tmp_path / "none", client_ca_file=None
            )
            new = new.model_copy(update={"edge": new.edge.model_copy(update={"tls": tls})})
        else:
            mesh = new.ha.mesh.model_copy(update={"secret_file": tmp_path / "none"})
            new = new.model_copy(update={"ha": new.ha.model_copy(update={"mesh": mesh})})
        with pytest.raises(AuthSetupError if broken == "keys" else OSError):
            await hub.apply(new, jwt)
        assert hub.ground.config is before and hub.listeners == listeners and hub.ways.mesh is not None
        assert await hub.tokens.verify(mint(SECRET, "site", None, now=hub.wall()))

    play(tmp_path, scene, "shadow")


def test_a_new_mode_opens_or_closes_the_mesh_and_owners_hear_of_it(tmp_path):
    async def scene(hub):
        heard = []

        class Session:
            def tell_again(self):
                heard.append(hub.ways.active)

        hub.reload._sessions = [Session()]
        mesh = hub.ways.mesh
        await hub.apply(config(hub, listener()))
        assert heard == [] and hub.ways.mesh is mesh
        await hub.apply(config(hub, listener(), mode="active"))
        assert heard == [True] and hub.ways.mesh is mesh and hub.ground.mode == "active"

    play(tmp_path, scene, "shadow")


# the rest


def test_what_waits_for_a_restart_is_said_and_not_taken_over(tmp_path, monkeypatch):
    said = []

    class Noted(Logger):
        def warning(self, event, /, **fields):
            said.append((event, fields))

    monkeypatch.setattr(module, "_log", Noted("hub"))

    async def scene(hub):
        flows = hub.ground.config.limits.max_flows
        await hub.apply(config(hub, listener(), limits={"max_flows": flows - 1}, logging={"level": "warning"}))
        assert hub.ground.config.limits.max_flows == flows and hub.ground.config.logging.level == "warning"
        assert said == [
            ("restart_needed", {"keys": ["limits.max_flows"], "detail": "`ncfast upgrade` applies them without a loss"})
        ]
        await hub.apply(config(hub, listener()))

    play(tmp_path, scene)


def test_a_hub_that_does_not_serve_takes_no_new_configuration(tmp_path):
    async def scene(hub):
        before = hub.ground.config
        hub.ground.readiness.move(State.DRAINING)
        with pytest.raises(OSError, match="draining"):
            await hub.apply(config(hub))
        assert hub.ground.config is before and hub.listeners["in"].bound

    play(tmp_path, scene)
