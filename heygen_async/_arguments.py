"""Checks of arguments, as plain functions and as attrs validators. Their messages start with the argument's name.

`None` means "not given" and passes, but not as a value of a policy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit

from heygen_async._text import LONGEST_TEXT, is_text, shortened, start_of, without_queries

if TYPE_CHECKING:
    from attrs import Attribute

    Field: TypeAlias = Attribute[Any]


# The largest integer that JSON parsers commonly take.
_TOO_LARGE: Final = 2**63
_LONGEST_SHOWN: Final = 100
_LONGEST_ID: Final = 255
_PLAIN_HTTPS: Final = re.compile(r"https://[A-Za-z0-9.\-]+/[!-~]*")
_MAY_BE_LOCAL: Final = re.compile(r"//[^/?#]*(?:\[|(?:\d|localhost)\.?(?:[:/?#]|$))", re.IGNORECASE)
"""What a URL on no public host contains: an address, or a name that ends in a number or in "localhost"."""
_UNSEEN: Final = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
"""What comes with a link that is copied from a page or a chat. Joiners are text."""
_USER: Final = re.compile(r"(?<=//)[^/?#]*@")


def plain_text(text: str) -> str:
    """Return *text* as a plain string: `str` of a member of an enum is its name, and not always its text."""
    return str.__str__(text)


def built_in(value: object) -> object:
    """Return a string or a number of a subclass, such as a float of numpy, as a plain one; anything else as it is."""
    match value:
        case None | bool():
            return value
        case str():
            return plain_text(value)
        case float():
            return float.__float__(value)
        case int():
            return int.__int__(value)
        case _:
            return value


def check_text(name: str, value: object) -> None:
    """Check that *value* is one line of text with something in it."""
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    if not is_text(value):
        raise ValueError(f"{name} must be one line of text, not {shown(value)}")


def is_word(value: str) -> bool:
    """Return whether *value* can be an id in the body of a request: one word, of any alphabet."""
    return is_text(value) and value.split() == [value] and "://" not in value


def check_id(name: str, value: object) -> None:
    """Check that *value* can be an id in the body of a request."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    if not is_word(value) or len(value) > _LONGEST_ID:
        raise ValueError(f"{name} must be an id, of 1 to {_LONGEST_ID} characters without spaces, not {shown(value)}")


def check_flag(name: str, value: object) -> None:
    """Check that *value* is a boolean."""
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{name} must be True, False or None, not {shown(value)}")


def valid_seconds(_instance: object, field: Field, value: object) -> None:
    """Check that *value* is a finite number of seconds, 0 or more; `None` is not."""
    if value is None:
        raise TypeError(f"{field.name} must be a number of seconds, not None")
    check_seconds(field.name, value)


def check_seconds(name: str, value: object) -> None:
    """Check that *value* is a finite number of seconds, 0 or more."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {shown(value)}")
    if not 0 <= value < _TOO_LARGE:
        raise ValueError(f"{name} must be 0 seconds or more, not {shown(value)}")


def valid_positive(instance: object, field: Field, value: object) -> None:
    """Check that *value* is a finite number above 0."""
    valid_seconds(instance, field, value)
    if value == 0:
        raise ValueError(f"{field.name} must be more than 0")


def check_timeout(timeout: object) -> None:
    """Check that *timeout* is a number of seconds, 0 or more (infinity too), or `None`."""
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds or None, not {shown(timeout)}")
    if not timeout >= 0 or (isinstance(timeout, int) and timeout >= _TOO_LARGE):  # NaN is not
        raise ValueError(f"timeout must be 0 seconds or more, or None, not {shown(timeout)}")


def one_of(*words: str) -> Callable[[object, Field, object], None]:
    """Return the check that a value is one of *words*."""

    def check(_instance: object, field: Field, value: object) -> None:
        if value not in words:
            raise ValueError(f"{field.name} must be {' or '.join(words)}, not {shown(value)}")

    return check


def valid_count(_instance: object, field: Field, value: object) -> None:
    """Check that *value* is a whole number, 1 or more."""
    check_count(field.name, value)


def check_count(name: str, value: object, *, most: int | None = None) -> int:
    """Return *value* if it is a whole number from 1 to *most*."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {shown(value)}")
    if value < 1 or (most is not None and value > most):
        raise ValueError(f"{name} must be 1 {'or more' if most is None else f'to {most}'}, not {shown(value)}")
    return value


def check_rate(name: str, value: object) -> None:
    """Check that *value* is a finite number above 0."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {shown(value)}")
    if not 0 < value < _TOO_LARGE:
        raise ValueError(f"{name} must be more than 0, not {shown(value)}")


def check_moment(name: str, value: object) -> None:
    """Check that *value* is an aware datetime."""
    if value is None:
        return
    if not isinstance(value, datetime):
        raise TypeError(f"{name} must be a datetime, not {shown(value)}")
    if value.utcoffset() is None:
        raise ValueError(f"{name} must be an aware datetime, such as datetime.now(UTC)")


def check_function(name: str, value: object) -> None:
    """Check that *value* can be called."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function, not {shown(value)}")


def check_type(name: str, value: object, kind: type, *, is_optional: bool = False) -> None:
    """Check that *value* is a *kind*; `None` passes if it is optional."""
    if not isinstance(value, kind) and not (is_optional and value is None):
        raise TypeError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")


def check_keywords(function: str, given: Iterable[str], known: Collection[str]) -> None:
    """Check the names of the keyword arguments of *function*.

    Raises:
        TypeError: If one of them is not *known*; the message is Python's own, with the closest name.
    """
    for name in given:
        if name not in known:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{_closest(name, known)}")


def _closest(name: str, known: Collection[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 for mistakes only

    close = get_close_matches(name, known, n=1)
    return f". Did you mean {close[0]!r}?" if close else ""


def check_callback_url(name: str, value: object) -> None:
    """Check that *value* is an https URL, or one of this machine, where only a sandbox can call."""
    check_text(name, value)
    if isinstance(value, str) and not is_https(value, or_loopback=True):
        raise ValueError(f"{name} must be an https URL, not {shown(value)}")


def is_loopback(host: str | None) -> bool:
    """Return whether *host* names this machine."""
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def host_problem(source: object) -> str | None:
    """Return why HeyGen cannot reach the host of *source*; `None` if it may, and if it is no URL."""
    if not isinstance(source, str) or _is_public(source):
        return None
    return f"must be on a public host, which HeyGen can reach, not {shown(source)}"


def _is_public(url: str) -> bool:
    """Return whether HeyGen may reach the host of *url*: it is no address of a private network or of this machine.

    Names are not looked up. A name that ends in a number is an address in a spelling that some resolvers read.
    """
    if _MAY_BE_LOCAL.search(url) is None:
        return True
    try:
        host = (urlsplit(url).hostname or "").removesuffix(".")
    except ValueError:
        return True  # it is no URL, which `is_https` says
    try:
        return ip_address(host).is_global
    except ValueError:
        return not is_loopback(host) and not host.rpartition(".")[2].isdecimal()


def is_https(url: str, *, or_loopback: bool = False) -> bool:
    """Return whether *url* is https (or http to this machine), with a host, without blanks or what nobody sees."""
    if _PLAIN_HTTPS.fullmatch(url):  # nearly every URL is; to parse it would cost more than the rest of a create
        return True
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is none
    except ValueError:
        return False
    if not parts.hostname or not is_text(url) or url.split() != [url] or _UNSEEN.search(url):
        return False
    return parts.scheme == "https" or (or_loopback and parts.scheme == "http" and is_loopback(parts.hostname))


def link_advice(url: str) -> str:
    """Return what to do about a character in *url*, to follow the message that it is no https URL, if that is why."""
    unseen = _UNSEEN.search(url)
    if unseen is not None and is_https(_UNSEEN.sub("", url)):
        return f" (without the unseen character U+{ord(unseen[0]):04X} in it)"
    is_blank = " " in url.strip() and is_https("".join(url.split()))
    return " (write blanks in it as %20)" if is_blank else ""


def without_query(url: str | None) -> str:
    """Return the repr of *url* without its query and user, which may be secrets."""
    if url is None:
        return "None"
    whole, has_query, _ = url.partition("?")
    start = start_of(whole)
    # What is cut may be in the middle of a user, which is hidden too.
    bare = _USER.sub("...@", start if start is whole else f"{start}@")
    return repr(f"{shortened(bare)}?..." if has_query else shortened(bare))


def quoted_word(word: str | None) -> str:
    """Return the repr of a *word* of the server's, such as an id; of a long one or a link, as `quoted` does."""
    is_plain = word is None or (len(word) <= LONGEST_TEXT and "?" not in word and "://" not in word)
    return repr(word) if is_plain else quoted(word)


def quoted(text: str | None) -> str:
    """Return the repr of a *text* of the server's, short, and without the queries and users of links in it."""
    return repr(text if text is None else shortened(without_queries(start_of(text))))


def shown(value: object) -> str:
    """Return *value* as a message shows it: short, a URL without its secrets, a container as the name of its type."""
    if isinstance(value, str):
        text = without_query(value) if "?" in value or "@" in value else repr(start_of(value))
    elif value is None or isinstance(value, (bool, float)):
        text = repr(value)
    elif isinstance(value, int):
        text = repr(value) if -_TOO_LARGE < value < _TOO_LARGE else "a number of more than 64 bits"
    else:
        text = type(value).__name__
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
