"""Builds the Cython modules; everything else about the package is in pyproject.toml.

``NCFAST_DEBUG=1`` builds for `make test-debug`: with gcc's address and undefined-behaviour sanitizers, and with
Cython's checks of bounds, None and division. Such modules load only under LD_PRELOAD of libasan.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("NCFAST_DEBUG") == "1"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]

extensions = [
    Extension(
        ".".join(source.with_suffix("").parts),
        [str(source)],
        extra_compile_args=["-O1", "-g", *SANITIZERS] if DEBUG else ["-O3", "-fno-strict-aliasing"],
        extra_link_args=SANITIZERS if DEBUG else [],
        undef_macros=["NDEBUG"] if DEBUG else [],
    )
    for source in sorted(Path("ncfast").rglob("*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "nonecheck": DEBUG,
            "wraparound": False,
            "cdivision": not DEBUG,
            "embedsignature": True,
        },
    )
)
