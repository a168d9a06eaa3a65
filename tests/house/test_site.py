"""The pages as a site: all are in its navigation, and links lead somewhere, as plain Markdown and as built."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docs.site import PAGES as STAGED
from docs.site import SITE, dead_links

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(page for room in ("docs", "examples") for page in sorted((ROOT / room).rglob("*.md"))),
]
PROJECT = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
CODE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)")


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def listed(nav: Any) -> Iterator[str]:
    """The pages of a navigation, in order."""
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from listed(entry)


def anchors(text: str) -> set[str]:
    """Of a page's headings, as GitHub makes them: lower case, blanks to dashes, other punctuation gone."""
    found: Counter[str] = Counter()
    made = set()
    for heading in re.findall(r"^#+ (.*)$", CODE.sub("", text), re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")
        made.add(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return made


def test_every_page_is_in_the_navigation_exactly_once():
    assert Counter(listed(PROJECT["nav"])) == Counter(map(ids, PAGES)), "zensical.toml: nav"


def test_the_generator_reads_and_writes_where_the_check_looks():
    assert (ROOT / PROJECT["docs_dir"], ROOT / PROJECT["site_dir"]) == (STAGED, SITE)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_anchors_that_are_linked_exist(page):
    text = CODE.sub("", page.read_text())
    links = [(page.parent / name if name else page, anchor) for name, anchor in LINK.findall(text)]
    assert not [f"{target.name}#{anchor}" for target, anchor in links if anchor not in anchors(target.read_text())]


def test_anchors_are_those_of_repositories_pages():
    text = "# A: `b.c` & [d](e.md)\n```sh\n# no heading\n```\n## A: `b.c` & d\n## Two  blanks, 2 – 3\n"
    assert anchors(text) == {"a-bc--d", "a-bc--d-1", "two--blanks-2--3"}


def test_dead_links_and_anchors_of_the_site_are_found(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "plot.svg").write_text("")
    (tmp_path / "sub" / "index.html").write_text(
        '<a href="../#here">1</a><img src="../plot.svg"><a href="#own" id="own">'
    )
    (tmp_path / "404.html").write_text('<a href="/sub/">1</a><a href="https://example.net/x#y">2</a>')
    (tmp_path / "index.html").write_text('<h1 id="here">')
    assert list(dead_links(tmp_path)) == []
    (tmp_path / "sub" / "index.html").write_text('<a href="../#gone">1</a><img src="../plot.png"><a href="../none/">')
    assert list(dead_links(tmp_path)) == [f"sub/index.html: ../{what}" for what in ("#gone", "none/", "plot.png")]
