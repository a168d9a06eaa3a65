"""Builds the Cython modules; everything else about the package is in pyproject.toml.

They are built hardened: canaries on the stack, the C library's checked copies, and tables of the linker that nobody
writes to after loading. Cython checks the bounds of what it indexes.

``NCFAST_DEBUG=1`` builds for `make test-debug`: with gcc's address and undefined-behaviour sanitizers, and with
Cython's checks of None and division. Such modules load only under LD_PRELOAD of libasan. ``NCFAST_UNBUILT=1`` leaves
them out: `make` installs the package editable, for each extra again, and builds its modules in place once.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("NCFAST_DEBUG") == "1"
UNBUILT = os.environ.get("NCFAST_UNBUILT") == "1"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
# -U: what a distribution has built into its compiler or its Python may be another level. A C library or compiler that
# does not know level 3 takes it for 2.
HARDENED = ["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=3"]
READ_ONLY = ["-Wl,-z,relro,-z,now"] if sys.platform == "linux" else []  # ELF alone has these tables

extensions = [
    Extension(
        ".".join(source.with_suffix("").parts),
        [str(source)],
        extra_compile_args=["-O1", "-g", *SANITIZERS] if DEBUG else ["-O3", "-fno-strict-aliasing", *HARDENED],
        extra_link_args=SANITIZERS if DEBUG else READ_ONLY,
        undef_macros=["NDEBUG"] if DEBUG else [],
    )
    for source in sorted(Path("ncfast").rglob("*.pyx"))
]

setup(
    ext_modules=[]
    if UNBUILT
    else cythonize(
        extensions,
        compiler_directives={
            "language_level": 3,
            # by bench/micro not to be told from none: most of what is read lies behind pointers, whose lengths are
            # checked where they are read
            "boundscheck": True,
            "nonecheck": DEBUG,
            "wraparound": False,
            "cdivision": not DEBUG,
            "embedsignature": True,
        },
    )
)
