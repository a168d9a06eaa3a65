"""How the page looks, what its script does, and the frame around its parts.

Spaces are of one scale (4, 8, 12, 16, 24, 40 px), figures stand under each other, and a colour always has a meaning
that a word beside it says, too. Light and dark follow the reader's system; on paper there are no forms.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

from ncfast.observe.history import PERIOD
from ncfast.observe.page.markup import text
from ncfast.observe.page.view import View

STYLE = """
:root { color-scheme: light dark; --back: #f7f7f5; --card: #fff; --rule: #e2e2dd; --ink: #1d1d1b; --quiet: #5e5e58;
  --line: #2457c5; --line2: #8a8a83; --good: #19703f; --warn: #8a5300; --bad: #b3261e; --idle: #5e5e58;
  --focus: #2457c5; }
@media (prefers-color-scheme: dark) {
  :root { --back: #131312; --card: #1b1b1a; --rule: #34342f; --ink: #ecece8; --quiet: #a6a69e; --line: #8ab0ff;
    --line2: #88887f; --good: #62c990; --warn: #e3b455; --bad: #ff8b80; --idle: #a6a69e; --focus: #8ab0ff; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 14px/1.5 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%; }
.page { max-width: 1200px; margin: 0 auto; padding: 24px 24px 40px; }
h1, h2, h3, p, figure { margin: 0; font-size: inherit; }
h1 { font-size: 24px; line-height: 32px; font-weight: 600; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 16px; line-height: 24px; font-weight: 600; margin-bottom: 12px; }
h3 { font-size: 14px; font-weight: 500; margin: 24px 0 8px; color: var(--quiet); }
section { margin-top: 40px; }
section p + .scroll, .scroll + p, .scroll + .scroll, nav + .scroll { margin-top: 12px; }
a { color: var(--line); text-underline-offset: 3px; }
:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; border-radius: 2px; }
.skip { position: absolute; left: -999px; }
.skip:focus { position: static; }
.quiet, small, .links { color: var(--quiet); }
.top { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: baseline; }
.top p { margin-left: auto; }
.links a { margin-left: 12px; }
.state { font-size: 16px; font-weight: 600; }
.about { color: var(--quiet); margin-top: 4px; }
.fine { margin-top: 16px; font-weight: 500; }
.mark { white-space: nowrap; }
.mark::before { content: ""; display: inline-block; width: 8px; height: 8px; border-radius: 50%; margin-right: 8px;
  background: currentColor; }
.mark.bad::before { border-radius: 0; } .mark.warn::before { border-radius: 0; transform: rotate(45deg); }
.mark.idle::before { background: none; border: 1.5px solid currentColor; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); } .idle { color: var(--idle); }
.findings { list-style: none; margin: 16px 0 0; padding: 0; }
.findings li { background: var(--card); border: 1px solid var(--rule); border-left: 4px solid currentColor;
  border-radius: 6px; padding: 8px 16px; margin-top: 8px; display: flex; gap: 4px 16px; }
.findings b { font-weight: 600; flex: none; width: 80px; }
.findings span { color: var(--ink); overflow-wrap: anywhere; min-width: 0; }
.curves { display: grid; grid-template-columns: repeat(3, 1fr); gap: 16px; }
.curve { background: var(--card); border: 1px solid var(--rule); border-radius: 6px; padding: 12px 16px; min-width: 0; }
.curve figcaption, .scale { color: var(--quiet); font-size: 12px; line-height: 16px; }
.figures { display: flex; gap: 4px 16px; flex-wrap: wrap; margin: 4px 0 8px; }
.now { font-size: 20px; line-height: 24px; font-weight: 600; white-space: nowrap; }
.now.line1 { color: var(--quiet); }
.curve { display: flex; flex-direction: column; } .curve svg { margin-top: auto; }
figcaption span { margin-left: 12px; white-space: nowrap; }
figcaption span::before { content: ""; display: inline-block; width: 12px; height: 2px; margin: 0 4px 3px 0;
  background: var(--line); }
figcaption .line1::before { background: var(--line2); }
.curve svg { display: block; width: 100%; height: 48px; }
.scale { white-space: nowrap; display: flex; justify-content: space-between; margin-top: 4px; }
svg .line { fill: none; stroke: var(--line); stroke-width: 1.5; vector-effect: non-scaling-stroke;
  stroke-linejoin: round; stroke-linecap: round; }
svg .line1 { stroke: var(--line2); } svg .area { fill: var(--line); opacity: .12; }
svg .base { stroke: var(--rule); stroke-width: 1; vector-effect: non-scaling-stroke; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 6px; }
.picture { display: block; font: 12px system-ui, sans-serif; margin: 0 auto; }
.picture text { fill: var(--ink); } .picture .name { font-size: 14px; font-weight: 600; }
.picture .label { fill: var(--quiet); } .picture .said { fill: currentColor; }
.hub rect { fill: var(--card); stroke: currentColor; stroke-width: 1.5; }
.link { fill: none; stroke: var(--line2); stroke-linecap: butt; }
.link.bad { stroke: var(--bad); stroke-dasharray: 5 5; } .picture .label.bad { fill: var(--bad); }
.agent { fill: var(--line); } .agent.warn { fill: var(--warn); }
.agent.standby { fill: none; stroke: var(--line); stroke-width: 1.5; stroke-dasharray: 1.5 1.5; }
.picture + p, .scroll + p { margin-top: 8px; }
table { border-collapse: collapse; width: 100%; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.scroll { position: relative; } .narrow .scroll { max-width: 400px; }
th, td { text-align: left; padding: 8px 12px; white-space: nowrap; vertical-align: baseline; }
th { color: var(--quiet); font-weight: 500; font-size: 12px; line-height: 16px; border-bottom: 1px solid var(--rule); }
th a { color: inherit; }
td { border-bottom: 1px solid var(--rule); } tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { padding-left: 16px; } th:last-child, td:last-child { padding-right: 16px; }
.number { text-align: right; }
td .text { white-space: normal; overflow-wrap: anywhere; display: block; min-width: 280px; color: var(--quiet); }
code { font: 13px ui-monospace, monospace; }
form { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin-bottom: 12px; }
label { color: var(--quiet); }
input, button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line2);
  border-radius: 6px; padding: 4px 12px; min-height: 32px; }
input { min-width: 0; flex: 0 1 240px; } button { cursor: pointer; }
.pages { display: flex; flex-wrap: wrap; gap: 8px 16px; justify-content: space-between; margin-top: 8px; }
.pages a, .by a { margin-left: 12px; display: inline-block; padding: 2px 0; }
.by { color: var(--quiet); margin-top: 12px; } .by [aria-current] { color: inherit; font-weight: 600; }
@media (max-width: 900px) { .curves { grid-template-columns: repeat(2, 1fr); } }
@media (max-width: 560px) {
  .page { padding: 16px 16px 24px; } section { margin-top: 24px; } .curves { gap: 8px; }
  .curve { padding: 12px; } figcaption span { display: block; margin: 0; } .now { font-size: 16px; }
  .top p { margin-left: 0; width: 100%; }
  .links a:first-child { margin-left: 0; } .findings li { flex-wrap: wrap; padding: 8px 12px; }
  .findings b { width: 100%; }
}
@media print {
  :root { --back: #fff; --card: #fff; --rule: #bbb; --ink: #000; --quiet: #444; --line: #2457c5; --line2: #777;
    --good: #19703f; --warn: #8a5300; --bad: #b3261e; --idle: #444; }
  body { font-size: 10px; } .page { max-width: none; padding: 0; } form, nav, .links, #live { display: none; }
  .scroll { overflow: visible; } th, td { padding: 2px 6px; white-space: normal; } th a { text-decoration: none; }
  .curve, tr, .findings li { break-inside: avoid; } h2 { break-after: avoid; }
  .mark::before { print-color-adjust: exact; }
}
"""

# Each event is a newer page, of which only what differs is put in. What the reader has selected or points at stays.
SCRIPT = """
(() => {
  const told = document.getElementById("live");
  const say = words => { if (told.textContent !== words) told.textContent = words; };
  const put = text => {
    const next = new DOMParser().parseFromString(text, "text/html");
    if (!getSelection().isCollapsed) return;
    document.title = next.title;
    for (const old of document.querySelectorAll("[data-live]")) {
      const fresh = next.getElementById(old.id);
      if (!fresh || fresh.innerHTML === old.innerHTML) continue;
      const held = old.contains(document.activeElement) ? document.activeElement : null;
      const label = held && held.getAttribute("aria-label");
      const across = [...old.querySelectorAll(".scroll")].map(one => one.scrollLeft);
      old.replaceChildren(...document.importNode(fresh, true).childNodes);
      old.querySelectorAll(".scroll").forEach((one, k) => { one.scrollLeft = across[k] || 0; });
      if (!held) continue;
      const again = held.id ? document.getElementById(held.id)
        : [...old.querySelectorAll("[tabindex]")].find(one => one.getAttribute("aria-label") === label);
      if (again) again.focus({ preventScroll: true });
    }
  };
  const follow = () => {
    const source = new EventSource("/live" + location.search);
    source.onopen = () => say("live");
    source.onmessage = event => put(JSON.parse(event.data));
    source.onerror = () => {
      say("no connection to the hub, trying again");
      if (source.readyState === EventSource.CLOSED) setTimeout(follow, 5000);
    };
  };
  follow();
})();
"""


def _hash(code: str) -> str:
    return f"'sha256-{b64encode(sha256(code.encode()).digest()).decode()}'"


# The page may use its own style and script and come back to this hub, and nothing else: text of a peer that slipped
# through could not do a thing.
SECURITY_POLICY = (
    f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def frame(title: str, body: str, view: View) -> str:
    """The whole document. Without scripts a live one is loaded again and again."""
    reload = f"<noscript><meta http-equiv=refresh content={PERIOD:g}></noscript>" if view.live else ""
    script = f"<script>{SCRIPT}</script>" if view.live else ""
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"{reload}<title>{text(title)}</title><style>{STYLE}</style></head>"
        f"<body><div class=page><a class=skip href='#main'>To the content</a>{body}</div>{script}</body></html>\n"
    )
