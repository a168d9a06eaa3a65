"""The kinds of value a configuration key can hold: addresses, networks, names, numbers, URLs.

Every refusal is raised through :func:`fault`, so that it carries a remedy and never repeats the value: the
loader shows values itself, as they were written and with secrets masked.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError, core_schema

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*\.?")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_EVENT = re.compile(r"^([a-z][a-z0-9_]{0,63}|[*])$")
_AGENT_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
_URL_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\xa0\\<>\"{}|^`]")  # urlsplit() would drop or guess at these


def fault(message: str, remedy: str = "", *keys: str) -> PydanticCustomError:
    """A refusal for a validator to raise.

    ``keys`` are the keys of the section that it concerns, the one to point at first.
    """
    context = {"message": message, "remedy": remedy, "keys": keys}
    return PydanticCustomError("ncfast", "{message}", context)


@dataclass(frozen=True, slots=True)
class Address:
    """``host:port``. An empty host is every interface; with port 0 the kernel chooses, and the log tells."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, value: Any) -> Address:
        """Reads ``127.0.0.1:389``, ``[::1]:389``, ``name:389`` or ``:389``."""
        if isinstance(value, Address):
            return value
        if not isinstance(value, str):
            raise fault("not an address", "write 'host:port' in quotes, such as '127.0.0.1:389'")
        host, colon, port = value.rpartition(":")
        if not colon:
            raise fault("address without a port", "write 'host:port', such as '127.0.0.1:389'")
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
            raise fault("the port is not a number from 0 to 65535", "write 'host:port', such as '127.0.0.1:389'")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            if not _is_ip(host, 6):
                raise fault("not an IPv6 address between the brackets", "write '[::1]:389'")
            host = str(ipaddress.ip_address(host))
        elif ":" in host:
            raise fault("an IPv6 address needs brackets", "write '[::1]:389'")
        elif host and not (_is_ip(host, 4) or _is_host_name(host)):
            raise fault("not a host name or IPv4 address", "write 'host:port', such as '127.0.0.1:389'")
        return cls(host, int(port))

    @property
    def is_wildcard(self) -> bool:
        """True when the address stands for every interface."""
        return self.host in ("", "0.0.0.0", "::")

    @property
    def is_loopback(self) -> bool:
        """True when only this machine can reach the address."""
        return self.host == "localhost" or _is_ip(self.host) and ipaddress.ip_address(self.host).is_loopback

    def overlaps(self, other: Address) -> bool:
        """True when both cannot be bound at once.

        Ports 0 never collide. ``[::]`` is IPv6 alone, as asyncio binds it; an empty host is both families.
        """
        if self.port != other.port or self.port == 0:
            return False
        same = not self._hosts().isdisjoint(other._hosts())
        return same or self._covers(other) or other._covers(self)

    def _hosts(self) -> set[str]:
        return {"127.0.0.1", "::1"} if self.host == "localhost" else {self.host.lower()}

    def _covers(self, other: Address) -> bool:
        """True when this is a wildcard that takes in at least one address of the other."""
        if self.host == "0.0.0.0":
            return not _is_ip(other.host, 6)
        if self.host == "::":
            return not _is_ip(other.host, 4)
        return not self.host

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(cls.parse, serialization=core_schema.to_string_ser_schema())

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "string", "title": "Address", "examples": ["127.0.0.1:389", "[::1]:389", ":389"]}


def _is_ip(host: str, version: int | None = None) -> bool:
    try:
        return ipaddress.ip_address(host).version == (version or ipaddress.ip_address(host).version)
    except ValueError:
        return False


def _is_host_name(host: str) -> bool:
    """A DNS name; one whose last label is a number is a mistyped IPv4 address (RFC 1123 2.1)."""
    last = host.rstrip(".").rpartition(".")[2]
    return len(host) <= 253 and _HOST_NAME.fullmatch(host) is not None and not last.isdigit()


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise fault("not a name", "use 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first")
    return value


def _agent_id(value: str) -> str:
    if not _AGENT_ID.fullmatch(value):
        raise fault("not an agent id", "use 1 to 128 letters, digits or any of . _ -, a letter or digit first")
    return value


def _dialled(address: Address) -> Address:
    if not address.host or address.is_wildcard:
        raise fault("an address to connect to needs a host", "write 'host:port', such as '127.0.0.1:389'")
    if address.port == 0:
        raise fault("an address to connect to needs a port", "write 'host:port', such as '127.0.0.1:389'")
    return address


def _network(value: Any) -> IPv4Network | IPv6Network:
    if isinstance(value, (IPv4Network, IPv6Network)):
        return value
    try:
        if not isinstance(value, str):
            raise ValueError
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise fault("not a network", "write '10.0.0.0/8' or '2001:db8::/32'; one address is '10.0.0.7/32'") from None
    address, slash, _ = value.partition("/")
    if slash and ipaddress.ip_address(address) != network.network_address:
        raise fault("the network has host bits set", f"did you mean '{network}'?")
    return network


def _moment(value: Any) -> Any:
    """Unix seconds, or text as ISO 8601 has it, which must say its zone."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise fault("not a moment", "write '2026-11-26T12:00:00Z', with a zone, or unix seconds")
        return moment.timestamp()
    return _not_bool(value)


def _not_bool(value: Any) -> Any:
    """pydantic would take ``true`` for the number 1."""
    if isinstance(value, bool):
        raise fault("must be a number")
    return value


def _true_or_false(value: Any) -> bool:
    """Only these two: pydantic would also take 1, 'yes', 'on'. The words as text come from a ``${NAME}``."""
    words = {"true": True, "false": False, True: True, False: False}
    if not isinstance(value, (str, bool)) or value not in words:
        raise fault("must be true or false", "write true or false")
    return words[value]


def split_url(value: str, *schemes: str) -> SplitResult:
    """Parses a URL; refuses what parsers disagree about: odd characters, no host, a bad port, a fragment."""
    listing = " or ".join(f"{scheme}://" for scheme in schemes)
    if _URL_FORBIDDEN.search(value):
        raise fault("the URL has a character that a URL cannot have", "percent-encode it, or remove it")
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        raise fault("the URL cannot be read", f"write {listing}host:port/path") from None
    if url.scheme not in schemes:
        raise fault(f"the URL must start with {listing}", f"write {listing}host:port/path")
    if port == 0 or not url.hostname or not (_is_ip(url.hostname) or _is_host_name(url.hostname)):
        raise fault("the URL names no host", f"write {listing}host:port/path")
    if "#" in value:
        raise fault("the URL has a fragment (#...)", "remove it")
    return url


def _no_user(url: SplitResult) -> None:
    if url.username is not None or url.password is not None:
        raise fault("the URL holds a user name or password", "remove the part before the @")


def _link_url(value: str, path: str) -> str:
    url = split_url(value, "ws", "wss")
    _no_user(url)
    if "?" in value:
        raise fault("the URL has a query (?...)", "remove it; the token belongs into a file")
    if not url.path.endswith(path):
        raise fault(f"the URL must end in {path}", f"write wss://host{path}")
    return value


def _tunnel_url(value: str) -> str:
    return _link_url(value, "/tunnel")


def _mesh_url(value: str) -> str:
    if value.startswith("unix:///"):
        return value
    if value.startswith(("ws://", "wss://")):
        return _link_url(value, "/mesh")
    url = split_url(value, "tls", "tcp", "wss", "ws")
    _no_user(url)
    if url.port is None or url.path or "?" in value:
        raise fault("a raw mesh URL is a host and a port", "write tls://host:port, or wss://host/mesh")
    return value


def _mesh_place(value: str) -> str:
    if "/" in value or _is_ip(value):
        return str(_network(value))
    if not _is_host_name(value.removeprefix(".")):
        raise fault("neither a network nor a host name", "write '10.0.0.0/8', 'hub-b.example.net' or '.example.net'")
    return value.lower()


def _jwks_url(value: str) -> str:
    _no_user(split_url(value, "https"))
    return value


def _otlp_url(value: str) -> str:
    url = split_url(value, "http", "https")
    _no_user(url)
    if url.path in ("", "/"):
        raise fault("the URL has no path", f"write {value.rstrip('/')}/v1/logs")
    return value


def _event_name(value: str) -> str:
    if not _EVENT.fullmatch(value):
        raise fault("not the name of an event", "use the words of the log, as flow_closed, or '*' for all")
    return value


CHECK_BYTES = 1024  # of a text that a health check says or expects; a request line and some headers

SENTINEL = ("redis+sentinel://", "rediss+sentinel://")


def _redis_url(value: str) -> str:
    if value.startswith(SENTINEL):
        scheme, _, rest = value.partition("://")
        hosts, _, path = rest.rpartition("@")[2].partition("/")
        if not path.strip("/"):
            raise fault(
                "a Sentinel URL names the service it watches", f"write {SENTINEL[0]}host:26379,host:26379/mymaster"
            )
        for host in hosts.split(","):
            split_url(f"{scheme}://{host}", scheme)
        database = path.partition("?")[0].strip("/").partition("/")[2]
    elif not value.startswith("unix:///"):
        database = split_url(value, "redis", "rediss").path.strip("/")
    else:
        database = ""
    asked = [database or "0", *parse_qs(value.partition("?")[2]).get("db", [])]
    if not all(number.isascii() and number.isdigit() for number in asked):
        raise fault("the database in the URL is not a number", "write redis://host:6379/0")
    return value


def _proxy_choice(value: Any) -> str:
    if value in ("env", "off"):
        return value
    if not isinstance(value, str) or "://" not in value:
        raise fault("must be env, off, or the URL of a proxy", "write http://host:port")
    split_url(value, "http", "https")
    return value


def _path(value: Any) -> Any:
    """A path, and not the secret itself pasted where its file belongs."""
    if value == "":
        raise fault("an empty path", "name the file")
    if isinstance(value, str) and ("\n" in value or "\0" in value or value.startswith(("eyJ", "-----BEGIN"))):
        raise fault("this is the content of a file, not its path", "put it into a file and name the file here")
    return value


def _certificate_name(value: str) -> str:
    """A name of a certificate with {sub} in it, and perhaps {tenant}; see `auth.jwt.certificate_name`."""
    parts = re.split(r"(\{sub\}|\{tenant\})", value)
    texts, holes = parts[::2], parts[1::2]
    if not value.startswith(("DNS:", "URI:")) or any("{" in text or "}" in text for text in texts):
        raise fault("not a name of a certificate", "write DNS:{sub}, or URI:spiffe://example.net/{tenant}/{sub}")
    if "{sub}" not in holes or len(set(holes)) != len(holes):
        raise fault("it must have {sub} once, and {tenant} at most once", "write DNS:{sub}")
    if len(holes) == 2 and not re.search(r"[^A-Za-z0-9._-]", texts[1]):  # or a.b of c could pass for a of b.c
        raise fault("nothing parts {sub} from {tenant} that neither can hold", "write a / between them, in a URI")
    return value


def _check_text(value: str) -> str:
    if not value or len(value) > CHECK_BYTES or any(ord(char) > 0xFF for char in value):
        raise fault(
            f"must be 1 to {CHECK_BYTES} bytes", "write a byte that is no text as \\x00 to \\xff, in double quotes"
        )
    return value


def _check_user(value: str) -> str:
    if not value or len(value) > 80 or "\0" in value:
        raise fault("not a user name", "use 1 to 80 characters")
    return value


def mask_url(value: str) -> str:
    """The URL with its user name and password hidden."""
    return re.sub(r"(?<=://)[^/?#]*@", "***@", value)


def _text(title: str, pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "title": title, "pattern": pattern})


Name = Annotated[str, AfterValidator(_name), _text("Name", _NAME.pattern)]
AgentId = Annotated[str, AfterValidator(_agent_id), _text("Agent id", _AGENT_ID.pattern)]
Count = Annotated[int, BeforeValidator(_not_bool)]
Bytes = Annotated[int, BeforeValidator(_not_bool)]
Seconds = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]
Rate = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]
Moment = Annotated[
    float,
    BeforeValidator(_moment),
    Field(allow_inf_nan=False, ge=0, le=2**53),
    WithJsonSchema({"type": ["string", "number"], "title": "Moment", "examples": ["2026-11-26T12:00:00Z"]}),
]
Switch = Annotated[bool, BeforeValidator(_true_or_false)]
CheckText = Annotated[str, AfterValidator(_check_text), _text("Text", "^[\\x00-\\xff]+$")]
CertificateName = Annotated[str, AfterValidator(_certificate_name), _text("Certificate name", "^(DNS|URI):.*[{]sub[}]")]
CheckUser = Annotated[str, AfterValidator(_check_user), _text("User name", "^.{1,80}$")]
Target = Annotated[Address, AfterValidator(_dialled)]
FilePath = Annotated[Path, BeforeValidator(_path)]
CIDR = Annotated[
    IPv4Network | IPv6Network,
    BeforeValidator(_network),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "title": "CIDR", "examples": ["10.0.0.0/8", "2001:db8::/32"]}),
]
TunnelUrl = Annotated[str, AfterValidator(_tunnel_url), _text("URL", "^wss?://.*/tunnel$")]
MeshUrl = Annotated[str, AfterValidator(_mesh_url), _text("URL", "^(wss?://.*/mesh|(tls|tcp)://.*|unix:///.*)$")]
MeshPlace = Annotated[str, AfterValidator(_mesh_place), _text("network or host name", "^[^/:]+(:.*)?(/[0-9]+)?$")]
OtlpUrl = Annotated[str, AfterValidator(_otlp_url), _text("URL", "^https?://.*/.*$")]
EventName = Annotated[str, AfterValidator(_event_name), _text("Event", _EVENT.pattern)]
JwksUrl = Annotated[str, AfterValidator(_jwks_url), _text("URL", "^https://")]
RedisUrl = Annotated[
    str, AfterValidator(_redis_url), PlainSerializer(mask_url), _text("URL", "^(rediss?([+]sentinel)?|unix)://")
]
ProxyChoice = Annotated[
    str,
    BeforeValidator(_proxy_choice),
    PlainSerializer(mask_url),
    WithJsonSchema({"anyOf": [{"enum": ["env", "off"]}, {"type": "string", "title": "URL", "pattern": "^https?://"}]}),
]
