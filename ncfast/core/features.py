"""What an end of a tunnel or of a mesh link knows beyond version 1 of the protocol, by name. Whoever reads the list
ignores names that are new to it, and asks nobody for what has not been said."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

PACKED_OPEN = "packed_open"  # reads the packed body of M_OPEN, too
MOVES = "moves"  # may be asked to be owned by another hub (MOVE)
MOVES_AGAIN = "moves_again"  # and by the hub that it is at, over another tunnel

Features = Annotated[list[Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]], Field(max_length=64)]
