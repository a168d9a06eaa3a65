"""The documents as a site with search, in build/site.

    python -m docs.site

The pages are linked as they lie in the repository, to its configuration files and test vectors too; so what is built is
a copy of that part of it, and every link means the same in both. Zensical makes the site, and refuses links between
pages that lead nowhere. Afterwards all that was made is read again: every link and image of every page must lead to a
file of the site, and every fragment to an anchor there.

Zensical is by the makers of Material for MkDocs, which gets no new features any more, as MkDocs itself gets no releases
(the last is of August 2024); it reads the same navigation and the same Markdown. It is young (0.0.x). So nothing here
leans on it: pages have no syntax of its own, and the check of links is ours.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build" / "pages"  # docs_dir and site_dir of zensical.toml
SITE = ROOT / "build" / "site"
COPIED = ("docs", "examples", "config", "tests/vectors")  # beside the pages of the root: what those of docs/ link to


class Page(HTMLParser):
    """The anchors of a page, and where its links and images lead."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.add(value)


def dead_links(site: Path) -> Iterator[str]:
    """Links of the pages of a site, one a line, that lead to no file or no anchor of it; other hosts are not asked."""
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            name = unquote(parts.path)
            target = (site / name.lstrip("/") if name.startswith("/") else path.parent / name) if name else path
            target = (target / "index.html" if target.is_dir() else target).resolve()
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                yield f"{path.relative_to(site)}: {link}"


def stage() -> None:
    """Copy what the site is made of."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for name in COPIED:
        shutil.copytree(ROOT / name, PAGES / name, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for page in ROOT.glob("*.md"):
        shutil.copy(page, PAGES)


def main() -> int:
    stage()
    shutil.rmtree(SITE, ignore_errors=True)
    built = subprocess.run([sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=ROOT)
    if built.returncode:
        return built.returncode
    dead = list(dead_links(SITE.resolve()))
    for link in dead:
        print(f"dead link: {link}", file=sys.stderr)
    print(SITE.relative_to(ROOT) / "index.html")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
