"""`ncfast`, but that a successor dies when a message comes that its test has named, in a file beside the configuration.

dying_program hub --config FILE      the message's kind is in FILE, with the suffix .dies; empty: it lives
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from ncfast.hub.taking import Taking
from ncfast.net.channel import Message

_hear = Taking._hear


def _hear_or_die(self: Taking, message: Message) -> None:
    if message.kind == Path(sys.argv[-1]).with_suffix(".dies").read_text():
        os._exit(3)
    _hear(self, message)


if __name__ == "__main__":
    Taking._hear = _hear_or_die  # type: ignore[method-assign]
    runpy.run_module("ncfast", run_name="__main__")
