"""Prints what is generated from the models: ``python -m ncfast.config docs`` or ``... schema``."""

from __future__ import annotations

import argparse

from ncfast.config.reference import reference_text
from ncfast.config.schema import schema_text

GENERATED = {"docs": reference_text, "schema": schema_text}

parser = argparse.ArgumentParser(prog="python -m ncfast.config", description=__doc__)
parser.add_argument("what", choices=GENERATED)
print(GENERATED[parser.parse_args().what](), end="")
