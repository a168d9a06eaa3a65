"""Builds the Cython modules; everything else about the package is in pyproject.toml.

``NCFAST_DEBUG=1`` builds with assertions, bounds checks and address sanitizer friendly flags.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("NCFAST_DEBUG") == "1"

extensions = [
    Extension(
        ".".join(source.with_suffix("").parts),
        [str(source)],
        extra_compile_args=["-O0", "-g"] if DEBUG else ["-O3", "-fno-strict-aliasing"],
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
            "wraparound": False,
            "cdivision": True,
            "embedsignature": True,
        },
    )
)
