"""Whether a request at an admin edge may come from a web page.

A browser reaches even a loopback port. What a page sends has an `Origin`, and changes nothing. A page whose own name
was rebound to our address (DNS rebinding) is of our origin, and could read: but it asks by its name, and so the `Host`
must be one of ours. An IP address always is: nobody can rebind one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from websockets.http11 import Request

from ncfast.net.request import Response

# RFC 9110, section 7.2
_HOST = re.compile(r"(\[(?P<literal>[0-9a-f:.]+)\]|(?P<name>[^:\[\]@/]*))(:[0-9]{0,5})?")


def is_for(request: Request, names: Iterable[str]) -> bool:
    """Whether the request is for localhost, for one of the names, or for an IP address."""
    hosts = request.headers.get_all("Host")
    if not hosts:
        return True  # HTTP/1.0, which no browser speaks
    name = _host(hosts[0])
    return name != "" and (name in {"localhost", *map(str.lower, names)} or _is_ip(name))


def from_page(request: Request) -> Response | None:
    """The refusal of a change that a web page asks for."""
    if "Origin" in request.headers:
        return Response.text(403, "Forbidden: not from a web page")
    return None


def _host(value: str) -> str:
    """The host of a Host header, in lower case, without port, brackets and the dot of a complete name; "" if it is no
    such header."""
    match = _HOST.fullmatch(value.strip().lower())
    return (match["literal"] or match["name"]).removesuffix(".") if match is not None else ""


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
