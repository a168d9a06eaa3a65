"""Text that cannot become anything else, and the few shapes that every part of the page has."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any


def text(value: Any) -> str:
    """Escaped for an element or a quoted attribute; a lone surrogate, which UTF-8 lacks, as its number."""
    return escape(str(value)).encode("utf-8", "backslashreplace").decode()


def words(value: str) -> str:
    """A word of ours as people write it."""
    return text(value.replace("_", " "))


def mark(kind: str, value: str) -> str:
    """A state: a word, and a colour for those who see it. Kinds: good, warn, bad, idle."""
    return f"<span class='mark {kind}'>{words(value)}</span>"


def section(name: str, title: str, body: str) -> str:
    """A part of the page, which the script replaces when another body has come."""
    return f"<section aria-labelledby={name}-title><h2 id={name}-title>{text(title)}</h2>{piece(name, body)}</section>"


def piece(name: str, body: str) -> str:
    """What the script replaces."""
    return f"<div id={name} data-live>{body}</div>"


def scroller(label: str, body: str) -> str:
    """What is wider than a phone scrolls by itself, with the keyboard, too."""
    return f"<div class=scroll role=group tabindex=0 aria-label='{text(label)}'>{body}</div>"


def table(label: str, columns: Iterable[str], rows: Iterable[str], empty: str = "none") -> str:
    """`columns` are of `column`, rows of `row`."""
    columns, body = list(columns), "".join(rows)
    return (
        f"<table><caption>{text(label)}</caption><thead><tr>{''.join(columns)}</tr></thead>"
        f"<tbody>{body or f'<tr><td colspan={len(columns)} class=quiet>{text(empty)}</td></tr>'}</tbody></table>"
    )


def column(title: str, number: bool = False, order: str = "", link: str = "") -> str:
    """A column's head; `link` sorts by it, `order` is ascending or descending where the rows are sorted by it."""
    inner = f"<a id='by-{text(title).replace(' ', '-')}' href='{text(link)}'>{text(title)}</a>" if link else text(title)
    arrow = {"ascending": " ▲", "descending": " ▼"}.get(order, "")
    sort = f" aria-sort={order}" if order else ""
    return f"<th scope=col{' class=number' * number}{sort}>{inner}<span aria-hidden=true>{arrow}</span></th>"


def row(cells: Iterable[Any]) -> str:
    return f"<tr>{''.join(map(cell, cells))}</tr>"


class Raw(str):
    """Markup of ours, to be taken as it is."""


class Number(str):
    """A quantity in words ("1.5 KiB"), set under others of its kind."""


def cell(value: Any) -> str:
    if isinstance(value, Raw):
        return f"<td>{value}</td>"
    if isinstance(value, Number):
        return f"<td class=number>{text(value)}</td>"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"<td class=number>{value:,}</td>"
    return f"<td>{text(value)}</td>"
