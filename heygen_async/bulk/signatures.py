"""Which parts of a link are its signature, so that the same link, signed again, counts as the same. Pure.

Rule 1: a parameter is left out of `without_signature` only if it is certain: a known signer adds it, and the link has
that signer's own marks; or its name means nothing but a signature; or its name ends so, and its value looks like one.
A JSON Web Token that claims something is not certain.
Rule 2: a general name (`token`, `hash`, `s`) may say which file is meant. It is left out of `without_likely_signature`
only if its value looks like a signature, and something else in the link says which file is meant.
Rule 3: a time belongs to a signature only beside one, or if its name says that something ends then: the time at which a
file was made says which file is meant. A date without a time of day is no such time.
Rule 4: everything else is part of the address. What is in doubt is too: a link that was signed again and is not
recognised costs a clear error, but a file that is taken for another one costs a wrong video.
Rule 5: `looks_signed` is generous instead, so what is in doubt is signed: a link that is not recognised there is paid
for again when it is signed again, or is kept where others read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import Final

from heygen_async.bulk.link import Link, parse_link, token_claims
from heygen_async.bulk.signers import MEDIA, added_by_signers, signs_path


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names of parameters, in lower case.

_SIGNATURES: Final = _names("signature sig hmac")
"""A signature, and nothing else."""
_SIGNATURE_ENDING: Final = re.compile(r".*[-_.](?:signature|sig|hmac)")
"""A signature if the value looks like one."""
_TOKENS: Final = _SIGNATURES | _names(
    "token access_token accesstoken auth auth_token auth_key authkey authorization jwt ticket secret"
    " sign st verify verification policy credential tempauth oh hm secure"
)
"""A signature if the value looks like one."""
_TOKEN_ENDING: Final = re.compile(r".*(?:token|signature|(?<!de)(?<!as)sign|[-_.](?:sig|hmac))")
"""Endings of such names: `download_token`, `wmsAuthSign`; not of `design` and `assign`."""
_SESSIONS: Final = _names("session sessionid sid")
"""A signature if the value looks like one and there is an expiry. Two links hardly ever share one."""
_DIGESTS: Final = _SESSIONS | _names("hash h md5 s digest sha1 sha256")
"""The same; without an expiry these may say which content is meant."""
_EXPIRY: Final = re.compile(r"(?:x[-_]?)?(?:exp|expires?|expiry|expiration)(?:[-_]?(?:at|in|time|timestamp|date))?")
"""An expiry if the value is a time, or a number of seconds of which the name says that they expire."""
_ENDS: Final = _names("deadline until valid_until")
"""An expiry if the value is a time."""
_SHORT_ENDS: Final = _names("e ex se oe")
"""An expiry if the value is a time, and another parameter is a signature."""
_TIMES: Final = _ENDS | _SHORT_ENDS | _names("t ts st timestamp")
"""A time if the value is one. Only beside a token: beside a signature the last ones may name a clip."""
_FILES: Final = _names("file filename name path key object id uuid video audio v f src source url asset media doc")
"""The file that is meant."""
_OTHER_MEANINGS: Final = _names("key v f src source object asset media doc")
"""Of these, what may as well be an API key, a version, a format or where a visitor comes from."""
_LASTING: Final = _FILES | _names("versionid generation rlkey resourcekey etag")
"""What may look random, and is the same each time."""

# Values of parameters.

_TIME: Final = re.compile(
    r"1\d{9}(?:\d{3})?|[67][0-9a-f]{7}|\d{4}-?\d\d-?\d\d[T ]\d\d:?\d\d(?::?\d\d(?:\.\d+)?)?(?:Z|[+\- ]\d\d:?\d\d)?",
    re.IGNORECASE,
)
"""Seconds or milliseconds since 1970, as decimal digits or as hexadecimal ones, or a date with a time of day."""
_SECONDS: Final = re.compile(r"\d{1,7}")
_TIME_BESIDE_SIGNATURE: Final = re.compile(
    r"[1-4]\d{9}(?:\d{3}){0,3}(?:\.\d+)?|20\d\d-\d\d-\d\d|20\d{10}(?:\d\d)?"
    r"|(?:mon|tue|wed|thu|fri|sat|sun), \d\d [a-z]{3} 20\d\d \d\d:\d\d:\d\d gmt",
    re.IGNORECASE,
)
"""An expiry beside a signature: seconds since 1970 or parts of them, a date, or an HTTP date."""
_SECONDS_BESIDE_SIGNATURE: Final = re.compile(r"\d{1,9}")
_TIME_IN_PATH: Final = re.compile(r"1\d{9}(?:\d{3})?|[67][0-9a-f]{7}|20\d{10}(?:\d\d)?", re.IGNORECASE)
_PERHAPS_A_TIME: Final = re.compile(
    rf"[0-9a-f]{{8}}|\d{{4}}-?\d\d-?\d\dT?[\d:.]*Z?|{_TIME_BESIDE_SIGNATURE.pattern}|{_TIME.pattern}", re.IGNORECASE
)
_CODED: Final = re.compile(r"[A-Za-z0-9+/=_\-.,:~%*! ]*")
"""What signatures are written in; a plus sign in a query is read as a blank."""
_SHORTEST: Final = 20
"""Characters of the shortest value that looks like a signature. An MD5 in base64 has 22."""
_RUN: Final = re.compile(r"[A-Za-z0-9+]{12,}")
_DIGEST: Final = re.compile(r"[A-Za-z0-9+/_\- ]{22}(?:==)?|[A-Za-z0-9+/_\- ]{27}=?|[A-Za-z0-9+/_\- ]{43}=?")
"""An MD5, SHA-1 or SHA-256 in base64. Its runs may be short: base64 for URLs has a minus sign and an underscore."""
_TURN: Final = re.compile(r"(?=[a-z][A-Z]|\d[A-Za-z]|[A-Za-z]\d)")
_LEAST_TURNS: Final = 3
"""How often letters and digits, or lower and upper case, follow each other: an MD5 does so nine times, words hardly."""


def without_signature(url: str) -> str:
    """Return *url* without the parameters that are certainly its signature."""
    link = parse_link(url)
    return url if link is None else link.less(_certain(link))


def without_likely_signature(url: str) -> str:
    """Return *url* also without the parameters that look like the signature of an unknown signer."""
    link = parse_link(url)
    if link is None:
        return url
    certain, likely = _certain(link), _likely(link)
    says_which_file = _says_which_file(link, link.values.keys() - certain - likely)
    return link.less(certain | likely if says_which_file else certain)


def looks_signed(url: str) -> bool:
    """Return whether *url* may be signed: it may be another one the next time, for the same file."""
    if signs_path(url) or _has_signed_path(url):
        return True
    link = parse_link(url)
    return link is not None and bool(
        link.has_tokens or link.is_marked or _certain(link) or _likely(link) or _perhaps(link)
    )


def _has_signed_path(url: str) -> bool:
    """Return whether a time in the path is beside what looks like a signature."""
    path = url.partition("?")[0]
    if _TIME_IN_PATH.search(path) is None:
        return False
    pieces = re.split("[/,]", path)
    beside = (*pairwise(pieces), *pairwise(reversed(pieces)))
    return any(_TIME_IN_PATH.fullmatch(one) and (_looks_random(other) or _is_digest(other)) for one, other in beside)


@lru_cache(maxsize=256)
def _certain(link: Link) -> frozenset[str]:
    """Return the names of the parameters that are certainly a signature (rule 1)."""
    values = link.values
    signatures = {name for name, value in values.items() if _is_signature(name, value)}
    # What a token claims may say which file is meant, so it stays; what goes with it does not.
    found = {name for name in signatures if not token_claims(values[name])}
    if signatures:
        found |= {name for name, value in values.items() if _goes_with_signature(name, value)}
    return added_by_signers(link) | found


def _is_signature(name: str, value: str) -> bool:
    if name in _SIGNATURES:
        return _CODED.fullmatch(value) is not None and MEDIA.search(value) is None
    return _SIGNATURE_ENDING.fullmatch(name) is not None and (_looks_random(value) or _is_digest(value))


def _goes_with_signature(name: str, value: str) -> bool:
    if _EXPIRY.fullmatch(name):
        is_number = "expir" in name and _SECONDS_BESIDE_SIGNATURE.fullmatch(value) is not None
        return is_number or _TIME_BESIDE_SIGNATURE.fullmatch(value) is not None or _is_time(name, value)
    if name in _ENDS or name in _SHORT_ENDS:
        return _TIME.fullmatch(value) is not None
    return name == "nonce" or (name == "policy" and _looks_random(value))


@lru_cache(maxsize=256)
def _likely(link: Link) -> frozenset[str]:
    """Return the names of the other parameters that look like a signature (rule 2)."""
    values = {name: value for name, value in link.values.items() if name not in _certain(link)}
    times = {name for name, value in values.items() if _is_time(name, value)}
    ends = {name for name in times if _EXPIRY.fullmatch(name) or name in _ENDS or name in _SHORT_ENDS}
    random = {name for name, value in values.items() if _looks_random(value) or (ends and _is_digest(value))}
    tokens = {name for name in random if _is_token(name, beside_end=bool(ends))}
    if tokens:
        return frozenset(tokens | times)
    return frozenset(name for name in ends - _SHORT_ENDS if _TIME.fullmatch(values[name]))


def _is_token(name: str, *, beside_end: bool) -> bool:
    return name in _TOKENS or _TOKEN_ENDING.fullmatch(name) is not None or (beside_end and name in _DIGESTS)


def _is_time(name: str, value: str) -> bool:
    is_expiry = _EXPIRY.fullmatch(name) is not None
    if is_expiry and "expir" in name and _SECONDS.fullmatch(value):
        return True
    return (is_expiry or name in _TIMES) and _TIME.fullmatch(value) is not None


def _looks_random(value: str) -> bool:
    """Return whether *value* looks like a signature: long, of mixed characters, and no name of a file."""
    if len(value) < _SHORTEST or _CODED.fullmatch(value) is None or MEDIA.search(value):
        return False
    return _is_mixed(value)


def _is_mixed(value: str) -> bool:
    return any(
        len({char.isdigit() or (char.isupper() + 1) * 2 for char in run}) > 1  # two of digits, upper and lower case
        for run in _RUN.findall(value)
    )


def _is_digest(value: str) -> bool:
    return _DIGEST.fullmatch(value) is not None and len(_TURN.findall(value)) >= _LEAST_TURNS


def _says_which_file(link: Link, others: Iterable[str]) -> bool:
    return MEDIA.search(link.path) is not None or any(
        name in _FILES and (name not in _OTHER_MEANINGS or MEDIA.search(link.values[name])) for name in others
    )


def _perhaps(link: Link) -> bool:
    """Return whether a parameter may be a signature, or belong to one (rule 5)."""
    values = [(name, value) for name, value, _ in link.parameters]  # each value of a name that is there twice
    names = {name for name, _ in values}
    if any(name in _SIGNATURES or _SIGNATURE_ENDING.fullmatch(name) for name in names):
        return True
    times = {name for name, value in values if _PERHAPS_A_TIME.fullmatch(value)}
    if any(_EXPIRY.fullmatch(name) or name in _ENDS for name in times):
        return True
    mixed = {name for name, value in values if _is_mixed(value) or _is_digest(value)}
    if any(name in _SESSIONS or _is_token(name, beside_end=False) for name in mixed):
        return True
    if any(name not in _LASTING and _looks_random(value or name) for name, value in values):
        return True
    has_time = any(_EXPIRY.fullmatch(name) for name in names) or not times.isdisjoint(_TIMES)
    return has_time and not mixed.isdisjoint(_DIGESTS)
