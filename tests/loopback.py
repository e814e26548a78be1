"""A guard of the whole test process: it refuses, and remembers, every attempt to reach another machine."""

import sys
from ipaddress import ip_address

attempts = []
"""What was tried since this list was last cleared. A caller may swallow the refusal, so tests look here, too."""


class ReachedOut(RuntimeError):
    """Raised where a test would reach anything but loopback."""


def is_loopback(host):
    """Tell whether *host*, as sockets take it, stays on this machine."""
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        address = ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def refuse(event, arguments):
    """Refuse, as an audit hook, what would leave this machine."""
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # a path, or a family that stays on this machine
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if not is_loopback(host):
        attempts.append(f"{event} {host}")
        raise ReachedOut(f"a test must not reach {host}")


sys.addaudithook(refuse)
