"""Where a webhook may lead: an https:// address on the public internet, or what WEBHOOK_ALLOW lists.

A caller names the webhook, and a worker inside the operator's network calls it. So a URL is
read strictly, and an address is refused unless the internet's registries call it public.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NoReturn, Self

from pydantic import SecretStr

from bus_worker.errors import BadRequest

__all__ = ["Destination", "WebhookRules", "check_url", "checked_allow", "checked_secret"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LONGEST_URL = 2000
SECRET_BYTES = range(24, 65)
"""What the Standard Webhooks specification takes as a `whsec_` secret."""

_NOT_PUBLIC = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # between a carrier and its customers; some clouds keep metadata here
        "127.0.0.0/8",
        "168.63.129.16/32",  # looks public, but is Azure's own service inside every machine there
        "169.254.0.0/16",  # link-local: the clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation, as are the two networks .100 and .113 below
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "2001::/23",  # Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which hides an IPv4 address
        "3fff::/20",  # documentation
    )
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All that was ever given out of IPv6; loopback, unique local and link-local lie outside."""
_NAT64 = IPv6Network("64:ff9b::/96")

_PORTS = {"https": 443, "http": 80}
_LOOPBACK = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*")
_NUMERIC = re.compile(r"(.*\.)?(\d+|0x[0-9a-f]*)")
"""A host that a resolver reads as an IPv4 address, however oddly it is written: `0x7f.1`."""
_URL = re.compile(r"(?P<scheme>https?)://(?P<place>[^/?#]*)(?P<target>[^#]*)", re.IGNORECASE)
_PLACE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class WebhookRules:
    """What signs webhooks, and what they may reach although it is not public."""

    key: bytes | None = field(default=None, repr=False)
    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def read(cls, secret: SecretStr | None, allow: Iterable[str]) -> Self:
        """The rules as the settings WEBHOOK_SECRET and WEBHOOK_ALLOW write them.

        Raises:
            ValueError: one of them is not allowed; says what is.
        """
        places = [_place(entry) for entry in allow]
        return cls(
            _signing_key(secret.get_secret_value()) if secret else None,
            frozenset(place for place in places if isinstance(place, str)),
            tuple(place for place in places if not isinstance(place, str)),
        )

    def lists(self, host: str, address: Address) -> bool:
        """Whether WEBHOOK_ALLOW has the name, or the address that it stands for."""
        return host in self.names or any(address in network for network in self.networks)

    def permits(self, host: str, address: Address) -> bool:
        """Whether `address`, which `host` stands for, may be connected to."""
        address = _embedded(address)
        return self.lists(host, address) or _is_public(address)


@dataclass(frozen=True, slots=True)
class Destination:
    """A webhook's URL, taken apart. The target may hold secrets and is for the request alone."""

    scheme: str
    host: str
    port: int
    target: str = field(repr=False)

    @property
    def place(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def address(self) -> Address | None:
        """The address, where the host is one and no name."""
        return ip_address(self.host) if ":" in self.host or _NUMERIC.fullmatch(self.host) else None


def checked_secret(secret: SecretStr | None) -> SecretStr | None:
    """WEBHOOK_SECRET as it is, if it can sign; else ValueError."""
    WebhookRules.read(secret, ())
    return secret


def checked_allow(allow: tuple[str, ...]) -> tuple[str, ...]:
    """WEBHOOK_ALLOW as it is, if every entry can be read; else ValueError."""
    WebhookRules.read(None, allow)
    return allow


def check_url(url: str, rules: WebhookRules) -> Destination:
    """Refuse a webhook that can never be called, before any work is done for it; asks no DNS.

    Raises:
        BadRequest: the URL is not allowed; the message tells nothing of the URL but its host.
    """
    to = _taken_apart(url)
    local = to.host == "localhost" or to.host.endswith(".localhost")
    literal = to.address
    known = _LOOPBACK if local else (literal,) if literal else ()
    if known and not any(rules.permits(to.host, address) for address in known):
        _refuse(f"must not lead to {to.host}, which is no public address")
    if to.scheme == "http" and not (
        to.host in rules.names or any(rules.lists(to.host, address) for address in known)
    ):
        _refuse("must be an https:// URL")
    return to


def _taken_apart(url: str) -> Destination:
    if len(url) > LONGEST_URL:
        _refuse(f"must have at most {LONGEST_URL} characters")
    if not re.fullmatch(r"[!-~]+", url):
        _refuse("must be a URL of plain ASCII, without spaces")
    whole = _URL.fullmatch(url)
    if not whole:
        _refuse("must be an https:// URL, without a fragment")
    if "@" in whole["place"]:
        _refuse("must not hold a user or a password")
    place = _PLACE.fullmatch(whole["place"])
    if not place:
        _refuse("must name a host, and a port at most")
    scheme = whole["scheme"].lower()
    port = int(place["port"] or _PORTS[scheme])
    if not 1 <= port <= 65_535:  # noqa: PLR2004 - what a port is
        _refuse("must have a port from 1 to 65535")
    target = whole["target"]
    return Destination(
        scheme, _host(place["host"]), port, target if target[:1] == "/" else f"/{target}"
    )


def _host(written: str) -> str:
    """A host as it is looked up: in small letters, without brackets or the root's dot."""
    host = written.lower().removesuffix(".")
    try:
        if host.startswith("["):
            return str(IPv6Address(host[1:-1]))
        if _NUMERIC.fullmatch(host):
            return str(IPv4Address(host))
    except ValueError:  # 2130706433, 0x7f.1 and 0177.0.0.1 are 127.0.0.1 to a resolver
        _refuse("must write an address in full, as four decimal numbers or as IPv6 in brackets")
    if not _NAME.fullmatch(host):
        _refuse("must name a host that can exist")
    return host


def _refuse(why: str) -> NoReturn:
    raise BadRequest(f"'webhook' {why}", field="webhook")


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 one only carries, where a machine would connect to that."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address in _NAT64:  # how machines without IPv4 see all of it
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _is_public(address: Address) -> bool:
    given_out = isinstance(address, IPv4Address) or address in _GLOBAL_UNICAST
    return given_out and not any(address in network for network in _NOT_PUBLIC)


def _place(entry: str) -> str | Network:
    """An entry of WEBHOOK_ALLOW: a network (an address is one of itself alone), or a name."""
    name = entry.lower().removesuffix(".")
    try:
        return ip_network(entry)
    except ValueError:
        if _NAME.fullmatch(name) and not _NUMERIC.fullmatch(name):
            return name
    raise ValueError(
        "must be host names, IP addresses and networks such as 10.0.0.0/8, comma-separated;"
        f" {entry[:80]!r} is none"
    )


def _signing_key(secret: str) -> bytes:
    """The bytes that sign: those that `whsec_` and base64 stand for, else the text's own."""
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if len(key) not in SECRET_BYTES:
        raise ValueError("must be 24 to 64 random bytes in base64 after whsec_, or any other text")
    return key
