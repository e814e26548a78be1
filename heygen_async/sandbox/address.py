"""Where a server listens, and the URL by which its clients reach it."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Final, Self

from attrs import frozen

_EVERY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 no address to bind
"""The addresses that mean every address of a machine, and that by which the machine itself reaches them."""
_AUTHORITY: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|[A-Za-z0-9._\-]{1,253})(?::[0-9]{1,5})?")


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens; `::` takes IPv4 too.

    Raises:
        OSError: If *host* has no address, or *port* is in use.
    """
    if ":" not in host:
        return socket.create_server((host, port))
    is_dual = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=is_dual)


@frozen
class Address:
    """The address of a socket that listens."""

    host: str
    port: int

    @classmethod
    def of(cls, name: tuple[object, ...]) -> Self:
        """Return the address in the *name* of a socket, as `socket.getsockname` returns it."""
        host, port, *_ = name
        return cls(str(host), int(str(port)))

    @property
    def url(self) -> str:
        """The URL for clients on this machine, without a slash at the end: `0.0.0.0` is no address to connect to."""
        host = _EVERY.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def origin(self, host_header: str) -> str:
        """Return the origin of links for a client whose request has this `Host`.

        A server on every address is reached by names and ports that it does not know, such as those of a container.
        """
        is_known = self.host not in _EVERY or not _is_authority(host_header)
        return self.url if is_known else f"http://{host_header}"


def _is_authority(text: str) -> bool:
    """Return whether *text* is a host, perhaps with a port, and nothing else."""
    found = _AUTHORITY.fullmatch(text)
    return found is not None and (found["v6"] is None or _is_v6(found["v6"]))


def _is_v6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
