"""Records `ncfast demo` as docs/demo.svg, an animation that plays in a README and ends on its last picture.

    python -m docs.recording
    python -m docs.recording --cluster

The demo runs under a pseudo-terminal; what it writes is kept with its times. A line of text stands in the SVG once for
each time that it is on the screen, and SMIL shows and hides it: no script, no font, nothing from elsewhere. Programs
that do not animate show the last picture.
"""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

TARGET = Path(__file__).parent / "demo.svg"
COLUMNS, MARGIN = 112, 16  # characters; pixels
CHARACTER, LINE, SIZE = 8.4, 20, 14  # pixels of one cell of a monospaced font, and its size
STEP = 0.2  # seconds of the shortest picture: what is on the screen for less is left out
REST = 6.0  # seconds that the last picture stands before it begins again
BACKGROUND, INK, DIM, GOOD = "#11151c", "#d7dde8", "#7f8ba0", "#7bd88f"
_CONTROL = re.compile(r"\x1b\[(\d*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


@dataclass(frozen=True)
class Line:
    """A line of the screen, on it from `start` to `end` (seconds); None: to the last picture."""

    row: int
    text: str
    start: float
    end: float | None


class Screen:
    """What a terminal shows of the demo: text, new lines, and the three sequences by which it draws its block anew.
    Raises ValueError for any other, as the picture would be wrong."""

    def __init__(self) -> None:
        self.lines = [""]
        self._row = 0

    def feed(self, text: str) -> None:
        for number, name, control, plain in _CONTROL.findall(text):
            if plain:
                self.lines[self._row] = self.lines[self._row] + plain
            elif control == "\n":
                self._row += 1
                if self._row == len(self.lines):
                    self.lines.append("")
            elif name == "F":  # to the beginning, so many lines above; what follows writes the line anew
                self._row -= int(number or 1)
                self.lines[self._row] = ""
            elif name == "J":  # from here to the end
                del self.lines[self._row + 1 :]
                self.lines[self._row] = ""
            elif name and name != "K":  # K: to the end of the line, where nothing is
                raise ValueError(f"the recording does not know the sequence ESC [ {number}{name}")


def record(command: Sequence[str]) -> list[tuple[float, str]]:
    """Runs the command under a pseudo-terminal; its output in pieces, with the seconds since the start. Raises
    RuntimeError when it fails: a demo that lost something is not shown."""
    pieces: list[tuple[float, str]] = []
    started = time.monotonic()
    child, terminal = pty.fork()
    if child == 0:
        os.execvp(command[0], command)
    kept = b""
    while True:
        select.select([terminal], [], [])
        try:
            data = os.read(terminal, 65536)
        except OSError:  # how Linux tells that the other end is closed
            break
        kept, whole = b"", kept + data
        while whole and whole[-1] & 0x80:  # a character may be cut
            try:
                whole.decode()
                break
            except UnicodeDecodeError:
                kept, whole = whole[-1:] + kept, whole[:-1]
        pieces.append((time.monotonic() - started, whole.decode()))
    os.close(terminal)
    if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise RuntimeError(f"{' '.join(command)} ended with {code}")
    return pieces


def lines(pieces: Iterable[tuple[float, str]]) -> list[Line]:
    """The lines of all pictures, `STEP` seconds apart at least; the last piece ends the last picture."""
    screen, shown, done = Screen(), {}, []
    pieces = list(pieces)
    drawn = 0.0
    for number, (when, text) in enumerate(pieces):
        screen.feed(text)
        if number + 1 < len(pieces) and (when < drawn + STEP or pieces[number + 1][0] - when < STEP / 10):
            continue  # half of a picture, or too soon
        drawn = when
        for row in range(max(len(screen.lines), len(shown))):
            now = screen.lines[row].rstrip() if row < len(screen.lines) else ""
            before = shown.get(row)
            if before is not None and before[0] == now:
                continue
            if before is not None and before[0]:
                done.append(Line(row, before[0], before[1], when))
            shown[row] = (now, when)
    return done + [Line(row, text, start, None) for row, (text, start) in shown.items() if text]


def draw(title: str, recorded: list[Line]) -> str:
    """The SVG. Each turn begins with `loop`; a line of the last picture is hidden until its time, any other shown in
    its."""
    length = max(line.start for line in recorded) + REST
    rows = max(line.row for line in recorded if line.end is None) + 2
    wide, high = COLUMNS * CHARACTER + 2 * MARGIN, rows * LINE + 2 * MARGIN
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {high}" role="img">',
        f"<title>{escape(title)}</title>",
        "<style>text { font: "
        f"{SIZE}px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; white-space: pre; fill: {INK}; }} "
        f".dim {{ fill: {DIM}; }} .good {{ fill: {GOOD}; }}</style>",
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}">'
        f'<animate id="loop" attributeName="opacity" from="1" to="1" begin="0s;loop.end" dur="{length:.1f}s"/></rect>',
        _text(0, f"$ {title}", ""),
    ]
    for line in sorted(recorded, key=lambda line: (line.start, line.row)):
        if line.end is None:
            hidden = f'<set attributeName="visibility" to="hidden" begin="loop.begin" dur="{line.start:.2f}s"/>'
            body.append(_text(line.row + 1, line.text, hidden))
        elif line.row < rows - 1:
            shown = (
                f'<set attributeName="visibility" to="visible" begin="loop.begin+{line.start:.2f}s" '
                f'dur="{line.end - line.start:.2f}s"/>'
            )
            body.append(_text(line.row + 1, line.text, shown, ' visibility="hidden"'))
    return "\n".join([*body, "</svg>", ""])


def _text(row: int, text: str, animation: str, more: str = "") -> str:
    kind = ' class="good"' if "intact" in text or "none lost" in text else ' class="dim"' if row == 0 else ""
    y = MARGIN + (row + 0.75) * LINE
    return f'<text x="{MARGIN}" y="{y:.0f}"{kind}{more}>{escape(text, quote=False)}{animation}</text>'


def main(arguments: list[str]) -> None:
    """Runs the demo and writes the picture."""
    pieces = record([sys.executable, "-m", "ncfast", "demo", *arguments])
    TARGET.write_text(draw(" ".join(["ncfast demo", *arguments]), lines(pieces)))


if __name__ == "__main__":
    main(sys.argv[1:])
