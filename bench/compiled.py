"""The C programs of the benchmarks, compiled when they are first needed.

What a program is called carries a hash of its source and of the headers beside it, so a changed source is compiled
again and an old program is never taken for it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
BUILT = SOURCES.parent / "build" / "bench"


def program(name: str) -> str:
    """The path of ``bench/NAME.c``, compiled. Raises RuntimeError without a C compiler."""
    source = SOURCES / f"{name}.c"
    digest = hashlib.sha256(b"".join(each.read_bytes() for each in [source, *sorted(source.parent.glob("*.h"))]))
    path = BUILT / f"{name}-{digest.hexdigest()[:12]}"
    if not path.exists():
        compiler = os.environ.get("CC") or shutil.which("cc")
        if compiler is None:
            raise RuntimeError(f"{source.name} needs a C compiler (Debian: gcc, libc6-dev)")
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{threading.get_native_id()}")  # others may compile it at the same time
        subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", scratch, source], check=True)
        scratch.replace(path)
    return str(path)
