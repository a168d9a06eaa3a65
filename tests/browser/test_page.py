"""The admin edge's page in a real browser: whether it can be read on a desk and in a hand, by eye, keyboard and screen
reader, with no agent and with five thousand. `make page-test` runs it; PICTURES=DIR leaves pictures there."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.chromium import Browser
from support.until import wait_until

from browser.hubs import Edge, hub_with

WIDTHS = (1280, 390)
CROWDS = (0, 1, 100, 5000)
PICTURES = os.environ.get("PICTURES")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if os.environ.get("BROWSER") != "1":
        pytest.skip("a browser is heavy: make page-test")
    made = Browser(tmp_path_factory.mktemp("browser"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def edges() -> Iterator[dict[int, Edge]]:
    made = {agents: Edge(hub_with(agents)) for agents in CROWDS}
    yield made
    for edge in made.values():
        edge.close()


@pytest.fixture(scope="module")
def troubled() -> Iterator[Edge]:
    edge = Edge(hub_with(100, trouble=True))
    yield edge
    edge.close()


@pytest.fixture(scope="module")
def axe() -> str:
    found = importlib.util.find_spec("axe_playwright_python")  # never loaded: it asks for another driver
    if found is None or found.origin is None:
        pytest.skip("axe-core is not installed: make page-test")
    return Path(found.origin).with_name("axe.min.js").read_text()


def keep(browser: Browser, name: str) -> None:
    if PICTURES:
        browser.picture(Path(PICTURES) / f"{name}.png")


def unfit(browser: Browser, axe: str) -> list[str]:
    """What axe-core finds, rules of WCAG 2.2 AA and its best practices."""
    browser.run(axe + ";0")
    found = browser.run("axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)")
    return [f"{one['id']}: {[node['html'][:200] for node in one['nodes'][:3]]}" for one in found]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("agents", CROWDS)
def test_it_can_be_read(browser: Browser, edges: dict[int, Edge], axe: str, agents: int, width: int) -> None:
    browser.show(edges[agents].url, width)
    wait_until(lambda: browser.run("document.getElementById('live').textContent") == "live", "the page is live")
    assert browser.run("document.documentElement.scrollWidth") <= width  # tables scroll inside
    assert browser.complaints() == []
    keep(browser, f"{agents}-{width}")
    assert unfit(browser, axe) == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_trouble_can_be_read_in_light_and_dark(
    browser: Browser, troubled: Edge, axe: str, width: int, dark: bool
) -> None:
    browser.show(troubled.url + "?refresh=off", width, dark=dark)
    keep(browser, f"trouble-{width}-{'dark' if dark else 'light'}")
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert unfit(browser, axe) == []


def test_on_paper_nothing_is_cut_off(browser: Browser, troubled: Edge) -> None:
    browser.show(troubled.url + "?refresh=off", 794, media="print")  # A4 at 96 dots an inch
    keep(browser, "print")
    assert browser.run("getComputedStyle(document.querySelector('form')).display") == "none"
    assert browser.run("[...document.querySelectorAll('.scroll')].every(one => one.scrollWidth <= innerWidth)")


def test_without_scripts_all_is_there(browser: Browser, edges: dict[int, Edge]) -> None:
    browser.show(edges[100].url + "?filter=site-0042", scripts=False)
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    names = " ".join(str(node.get("name", {}).get("value", "")) for node in tree)
    for word in ("hub-a", "Recent events", "site-0042", "Slowest mesh link", "hub_ready"):
        assert word in names


def test_it_moves_by_itself_and_leaves_the_reader_alone(browser: Browser, edges: dict[int, Edge]) -> None:
    hub = edges[100].hub
    browser.show(edges[100].url + "?sort=flows", 390)
    browser.run("document.querySelector('#agents').closest('.scroll').scrollLeft = 80")
    browser.run("document.getElementById('by-sent').focus({preventScroll: true})")
    browser.run("document.getElementById('filter').value = 'half a wor'")
    hub.rows[3] |= {"agent_id": "site-new", "flows": 10**9}
    wait_until(lambda: browser.run("document.querySelector('#agents tbody td').textContent") == "site-new", "it moves")
    assert browser.run("document.activeElement.id") == "by-sent"
    assert browser.run("document.getElementById('filter').value") == "half a wor"
    assert browser.run("document.querySelector('#agents').closest('.scroll').scrollLeft") == 80
    assert browser.complaints() == []


def test_it_says_when_the_hub_is_gone(browser: Browser) -> None:
    edge = Edge(hub_with(1))
    browser.show(edge.url)
    wait_until(lambda: browser.run("document.getElementById('live').textContent") == "live", "the page is live")
    edge.close()
    wait_until(lambda: "no connection" in browser.run("document.getElementById('live').textContent"), "it says so")


def test_everything_is_reached_by_keyboard(browser: Browser, edges: dict[int, Edge]) -> None:
    browser.show(edges[100].url + "?refresh=off")
    wanted = browser.run("document.querySelectorAll('a, input:not([type=hidden]), button, [tabindex]').length")
    reached = set()
    for _ in range(wanted):
        browser.press("Tab", 9)
        reached.add(
            browser.run(
                "[...document.querySelectorAll('a, input:not([type=hidden]), button, [tabindex]')]"
                ".indexOf(document.activeElement)"
            )
        )
    assert reached == set(range(wanted))


def test_five_thousand_agents_are_as_quick_as_a_hundred(browser: Browser, edges: dict[int, Edge]) -> None:
    """Elements, not seconds: what a browser has to lay out does not grow with the agents."""
    counts = {}
    for agents in (100, 5000):
        browser.show(edges[agents].url + "?refresh=off")
        counts[agents] = browser.run("document.querySelectorAll('*').length")
    assert counts[5000] < 1.2 * counts[100] and counts[5000] < 5000
