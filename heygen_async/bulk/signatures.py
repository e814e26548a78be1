"""Which parts of a link are its signature, so that the same link, signed again, counts as the same. Pure.

Rule 1: a parameter is left out of `without_signature` only if it is certain: a known signer adds it, and the link has
that signer's own marks; or its name means nothing but a signature; or its name ends so, and its value looks like one.
Rule 2: a general name (`token`, `hash`, `s`) may say which file is meant. It is left out of `without_likely_signature`
only if its value looks like a signature, and something else in the link says which file is meant.
Rule 3: a time belongs to a signature only beside one, or if its name says that something ends then: the time at which a
file was made says which file is meant. A date without a time of day is no such time.
Rule 4: everything else is part of the address. What is in doubt is too: a link that was signed again and is not
recognised costs a clear error, but a file that is taken for another one costs a wrong video.
Rule 5: `looks_signed` asks the opposite, so what is in doubt is signed: a link that is not recognised there is paid for
again when it is signed again, or is kept where others read it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote, unquote_plus, urlsplit

import orjson
from attrs import Factory, field, frozen


@frozen
class _Signer:
    """The parameters that one kind of signed link has besides its address, by lower-case name."""

    marks: frozenset[str]
    """Those by which it is recognised: all of them must be there."""
    adds: frozenset[str]
    """All that it adds."""
    host: re.Pattern[str] | None = None
    path: re.Pattern[str] | None = None
    shape: re.Pattern[str] | None = None
    """What the value of each mark looks like."""

    def signs(self, link: _Link) -> bool:
        return (
            self.marks <= link.values.keys()
            and (self.host is None or self.host.search(link.host) is not None)
            and (self.path is None or self.path.search(link.path) is not None)
            and (self.shape is None or all(self.shape.search(link.values[name]) for name in self.marks))
        )


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _signer(marks: str, adds: str = "", *, host: str = "", path: str = "", shape: str = "") -> _Signer:
    return _Signer(
        _names(marks),
        _names(f"{marks} {adds}"),
        *(re.compile(pattern, re.IGNORECASE) if pattern else None for pattern in (host, path, shape)),
    )


def _prefixed(prefix: str, names: str) -> str:
    return " ".join(f"{prefix}{name}" for name in names.split())


_V4: Final = "algorithm credential date expires signedheaders security-token"

_SIGNERS: Final = (
    # AWS Signature V4: S3, R2, B2, Wasabi, Spaces, MinIO, Yandex, ...
    _signer("x-amz-signature", _prefixed("x-amz-", f"{_V4} user-agent content-sha256")),
    _signer("awsaccesskeyid signature", "expires x-amz-security-token"),
    _signer("x-goog-signature", _prefixed("x-goog-", _V4)),
    _signer("googleaccessid signature", "expires"),
    # CloudFront, and Google's CDNs
    _signer("key-pair-id signature", "expires policy hash-algorithm"),
    _signer("expires keyname signature"),
    _signer("urlprefix keyname signature", "expires"),
    # Azure: account, service and user delegation SAS
    _signer("sig sv", "ss srt sr st se sp sip spr si sdd sks skt ske skv skoid sktid saoid suoid scid ses"),
    _signer("token", path=r"/storage/v1/(object|render/image|object/render)/sign/"),  # Supabase
    _signer("token", host=r"^firebasestorage\.googleapis\.com$"),
    # Alibaba: OSS, OSS V4, CDN
    _signer("ossaccesskeyid signature", "expires security-token"),
    _signer("x-oss-signature", _prefixed("x-oss-", f"{_V4} signature-version additional-headers")),
    _signer("auth_key", shape=r"^\d{10}-[^-]*-[^-]*-[0-9a-f]{32}$"),
    # Akamai
    *(_signer(name) for name in ("hdnts", "hdnea", "hdntl", "__token__", "edge-cache-token")),
    _signer("authorization", host=r"\.backblazeb2\.com$"),
    _signer("verify", shape=r"^\d{10}-[A-Za-z0-9+/=_\-]{20,}$"),  # Cloudflare
    _signer("token expires", "token_path token_countries token_countries_blocked limit", host=r"\.b-cdn\.net$"),
    # Tencent: COS, CDN
    _signer(
        "q-signature",
        _prefixed("q-", "sign-algorithm ak sign-time key-time header-list url-param-list") + " x-cos-security-token",
    ),
    _signer("sign", shape=r"^\d{10}-[^-]*-[^-]*-[0-9a-f]{32}$"),
    _signer("txsecret txtime"),
    _signer("wssecret wstime"),  # ChinaNetCenter
    _signer("accesskeyid signature", "expires x-obs-security-token"),  # Huawei
    _signer("kssaccesskeyid signature", "expires"),  # Kingsoft
    _signer("x-tos-signature", _prefixed("x-tos-", _V4)),  # Volcengine
    _signer("authorization", shape=r"^bce-auth-v1/"),  # Baidu
    _signer("timestamp signature", host=r"\.cloudinary\.com$"),
    _signer("ex is hm", host=r"\.(discordapp\.(com|net)|discord\.com)$"),
    _signer("st", host=r"\.(dropbox|dropboxusercontent)\.com$"),
    _signer("tempauth"),  # SharePoint
)

_PATH_START: Final = r"(?:^|[~&])(?:hdn(?:ts|tl|ea)=)?"
_PATH_TOKEN: Final = re.compile(
    _PATH_START + r"(?:hmac=[0-9a-f]{32,}|bcdn_token=[A-Za-z0-9_\-]{20,}={0,2})(?![^~&])", re.IGNORECASE
)
"""The signature in a segment of a path, at Akamai and Bunny."""
_PATH_PIECE: Final = re.compile(
    _PATH_START + r"(?:exp|st|acl|ip|hmac|bcdn_token|expires|token_path)=[^~&]*", re.IGNORECASE
)
"""What belongs to it in the same segment."""
_PATH_SESSION: Final = re.compile(r"(?<=~)id=[^~&]*~(?=.*hmac=)", re.IGNORECASE)
"""The session, after the expiry of Akamai."""
_PATH_EXPIRY: Final = re.compile(_PATH_START + r"exp=\d{10}(?![^~&])", re.IGNORECASE)
_PATH_MARK: Final = re.compile(r"(?:^|[~&=])hmac=|(?:^|[~&])bcdn_token=", re.IGNORECASE)
"""What may be such a signature."""

_SIGNATURE: Final = _names("signature sig hmac")
"""Names that mean nothing but a signature."""
_SIGNATURE_ENDING: Final = re.compile(r".+[-_.](?:signature|sig|hmac)")
"""The ending of other such names, if the value looks like a signature."""
_SIGNATURE_NAME: Final = re.compile(r"(?:.*[-_.])?(?:signature|sig|hmac)")
"""Both, whatever the value is."""
_EXPIRY: Final = re.compile(r"(?:x[-_]?)?(?:exp|expires?|expiry|expiration)(?:[-_]?(?:at|in|time|timestamp|date))?")
"""Names of an expiry, if the value is a time, or a number of seconds of which the name says that they expire."""
_ENDS: Final = frozenset({"deadline", "until", "valid_until"})
"""Other names of an expiry, if the value is a time."""
_SHORT_ENDS: Final = frozenset({"e", "ex", "se", "oe"})
"""Likewise, but too short to say so alone."""
_TIMES: Final = _ENDS | _SHORT_ENDS | {"t", "ts", "st", "timestamp"}
"""Names of a time, if the value is one. Only beside a token: beside a signature the last ones may name a clip."""
_GENERAL: Final = _names(
    "token access_token accesstoken auth auth_token auth_key authkey authorization jwt ticket secret"
    " sign st verify verification policy credential tempauth oh hm secure"
)
"""Names of a signature, if the value looks like one."""
_GENERAL_ENDING: Final = re.compile(r".*(?:token|signature|(?<!de)(?<!as)sign)")
"""The ending of other such names: `download_token`, `wmsAuthSign`; not of `design` and `assign`."""
_DIGESTS: Final = _names("hash h md5 s digest sha1 sha256 session sessionid sid")
"""Likewise, but only beside an expiry: alone they may tell one content from another."""
_SESSIONS: Final = _names("session sessionid sid")
"""Those that are hardly ever the same in two links."""
_NAMES_A_FILE: Final = _names(
    "file filename name path key object id uuid video audio v f src source url asset media doc"
)
_MEDIA: Final = re.compile(r"\.(?:mp4|m4v|webm|mov|mkv|avi|mp3|wav|m4a|aac|ogg|flac)$", re.IGNORECASE)
_TIME: Final = re.compile(
    r"1\d{9}(?:\d{3})?|[67][0-9a-f]{7}|\d{4}-?\d\d-?\d\d[T ]\d\d:?\d\d(?::?\d\d(?:\.\d+)?)?(?:Z|[+\- ]\d\d:?\d\d)?",
    re.IGNORECASE,
)
"""Seconds or milliseconds since 1970, as decimal digits or as hexadecimal ones, or a date with a time of day."""
_SECONDS: Final = re.compile(r"\d{1,7}")
_END: Final = re.compile(
    r"[1-4]\d{9}(?:\d{3}){0,3}(?:\.\d+)?|20\d\d-\d\d-\d\d|20\d{10}(?:\d\d)?"
    r"|(?:mon|tue|wed|thu|fri|sat|sun), \d\d [a-z]{3} 20\d\d \d\d:\d\d:\d\d gmt",
    re.IGNORECASE,
)
"""An expiry beside a signature: seconds since 1970 or parts of them, a date, or an HTTP date."""
_MANY_SECONDS: Final = re.compile(r"\d{1,9}")
_PERHAPS_A_TIME: Final = re.compile(
    rf"[0-9a-f]{{8}}|\d{{4}}-?\d\d-?\d\dT?[\d:.]*Z?|{_END.pattern}|{_TIME.pattern}", re.IGNORECASE
)
_CODED: Final = re.compile(r"[A-Za-z0-9+/=_\-.,:~%*! ]*")
"""What signatures are written in; a plus sign in a query is read as a blank."""
_SHORTEST: Final = 20
"""Characters of the shortest value that looks like a signature. An MD5 in base64 has 22."""
_JWT: Final = re.compile(r"ey[A-Za-z0-9_\-]+\.(ey[A-Za-z0-9_\-]+)\.[A-Za-z0-9_\-]*")
_MAY_BE_SIGNED: Final = re.compile(r"[?=%]|/ey")
"""What every link with a query or a token contains: the others, which are most, need not be taken apart."""
_JWT_TIMES: Final = frozenset({"exp", "iat", "nbf", "jti"})
_RUN: Final = re.compile(r"[A-Za-z0-9+]{12,}")


@frozen(eq=False)
class _Link:
    url: str
    host: str
    base: str
    """All before the query, less its signature."""
    path: str
    parameters: tuple[tuple[str, str, str], ...]
    """Lower-case name, value, and both as they are written; a token by what it claims."""
    fragment: str
    has_tokens: bool
    """Whether there are signatures outside of parameters, or tokens."""
    is_marked: bool
    """Whether something in the path may be a signature."""
    values: Mapping[str, str] = field(
        init=False, default=Factory(lambda link: {name: value for name, value, _ in link.parameters}, takes_self=True)
    )

    def less(self, names: frozenset[str]) -> str:
        """Return the link without the parameters of these *names*, and with tokens as what they claim."""
        if not names and not self.has_tokens:
            return self.url
        kept = [text for name, _, text in self.parameters if name not in names]
        return "?".join([self.base, "&".join(kept)] if any(kept) else [self.base]) + self.fragment


@lru_cache(maxsize=256)
def _parsed(url: str) -> _Link:
    whole, mark, fragment = url.partition("#")
    base, _, query = whole.partition("?")
    parts = urlsplit(base)
    segments = [_without_token(_claims(segment, unquote(segment))) for segment in parts.path.split("/")]
    path = "/".join(segment for segment in segments if segment is not None)
    parameters = tuple(map(_parameter, query.split("&"))) if query else ()
    return _Link(
        url=url,
        host=(parts.hostname or "").lower(),
        base=base[: len(base) - len(parts.path)] + path,
        path=path,
        parameters=parameters,
        fragment=mark + fragment,
        has_tokens=path != parts.path or "&".join(text for _, _, text in parameters) != query,
        is_marked=any(_PATH_MARK.search(unquote(segment)) for segment in parts.path.split("/")),
    )


def _parameter(text: str) -> tuple[str, str, str]:
    name, equals, coded = text.partition("=")
    value = unquote_plus(coded)
    claims = _claims(coded, value)
    return unquote_plus(name).lower(), value, f"{name}{equals}{claims}" if claims or not coded else ""


def _without_token(segment: str) -> str | None:
    """Return a *segment* of a path without the signature in it; `None` if nothing remains."""
    text = unquote(segment)
    if _PATH_TOKEN.search(text) is None:
        return segment
    if _PATH_EXPIRY.search(text):
        text = _PATH_SESSION.sub("", text)
    return quote(_PATH_PIECE.sub("", text), safe="~&=") or None


def _claims(text: str, value: str) -> str:
    """Return *text*; if *value* is a JSON Web Token, what it claims without its times and its signature."""
    found = _JWT.fullmatch(value)
    if found is None:
        return text
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)))
    except (binascii.Error, orjson.JSONDecodeError):
        return text
    if not isinstance(claims, dict):
        return text
    lasting = {name: claim for name, claim in claims.items() if name not in _JWT_TIMES}
    return orjson.dumps(lasting, option=orjson.OPT_SORT_KEYS).decode() if lasting else ""


def _link(url: str) -> _Link | None:
    """Return the parts of *url*; `None` if nothing of it can be a signature."""
    if _MAY_BE_SIGNED.search(url) is None:
        return None
    link = _parsed(url)
    return link if link.has_tokens or link.is_marked or link.parameters else None


def without_signature(url: str) -> str:
    """Return *url* without the parameters that are certainly its signature."""
    link = _link(url)
    return url if link is None else link.less(_certain(link))


def without_likely_signature(url: str) -> str:
    """Return *url* also without the parameters that look like the signature of an unknown signer."""
    link = _link(url)
    if link is None:
        return url
    certain, likely = _certain(link), _likely(link)
    is_told = _says_which_file(link, link.values.keys() - certain - likely)
    return link.less(certain | likely if is_told else certain)


def looks_signed(url: str) -> bool:
    """Return whether *url* may be signed: it may be another one the next time, for the same file."""
    link = _link(url)
    return link is not None and bool(
        link.has_tokens or link.is_marked or _certain(link) or _likely(link) or _may_be_signed(link)
    )


def _may_be_signed(link: _Link) -> bool:
    pairs = [(name, value) for name, value, _ in link.parameters]
    if any(_SIGNATURE_NAME.fullmatch(name) for name, _ in pairs):
        return True
    if any(_EXPIRY.fullmatch(name) or name in _ENDS for name, value in pairs if _PERHAPS_A_TIME.fullmatch(value)):
        return True
    mixed = {name for name, value in pairs if _is_mixed(value)}
    if any(name in _SESSIONS or _is_token(name, beside_end=False) for name in mixed):
        return True
    has_time = any(
        _EXPIRY.fullmatch(name) or (name in _TIMES and _PERHAPS_A_TIME.fullmatch(value)) for name, value in pairs
    )
    return has_time and not mixed.isdisjoint(_DIGESTS)


@lru_cache(maxsize=256)
def _certain(link: _Link) -> frozenset[str]:
    values = link.values
    found = {name for signer in _SIGNERS if signer.signs(link) for name in signer.adds}
    signatures = {name for name, value in values.items() if _is_signature(name, value)}
    found |= signatures
    if signatures:
        found |= {name for name, value in values.items() if _goes_with_signature(name, value)}
    return frozenset(found & values.keys())


def _is_signature(name: str, value: str) -> bool:
    if name in _SIGNATURE:
        return _CODED.fullmatch(value) is not None and _MEDIA.search(value) is None
    return _SIGNATURE_ENDING.fullmatch(name) is not None and _looks_random(value)


def _goes_with_signature(name: str, value: str) -> bool:
    if _EXPIRY.fullmatch(name):
        is_number = "expir" in name and _MANY_SECONDS.fullmatch(value) is not None
        return is_number or _END.fullmatch(value) is not None or _is_time(name, value)
    if name in _ENDS or name in _SHORT_ENDS:
        return _TIME.fullmatch(value) is not None
    return name == "nonce" or (name == "policy" and _looks_random(value))


@lru_cache(maxsize=256)
def _likely(link: _Link) -> frozenset[str]:
    values = {name: value for name, value in link.values.items() if name not in _certain(link)}
    times = {name for name, value in values.items() if _is_time(name, value)}
    ends = {name for name in times if _EXPIRY.fullmatch(name) or name in _ENDS or name in _SHORT_ENDS}
    tokens = {name for name, value in values.items() if _is_token(name, beside_end=bool(ends)) and _looks_random(value)}
    if tokens:
        return frozenset(tokens | times)
    return frozenset(name for name in ends - _SHORT_ENDS if _TIME.fullmatch(values[name]))


def _is_token(name: str, *, beside_end: bool) -> bool:
    return name in _GENERAL or _GENERAL_ENDING.fullmatch(name) is not None or (beside_end and name in _DIGESTS)


def _is_time(name: str, value: str) -> bool:
    is_expiry = _EXPIRY.fullmatch(name) is not None
    if is_expiry and "expir" in name and _SECONDS.fullmatch(value):
        return True
    return (is_expiry or name in _TIMES) and _TIME.fullmatch(value) is not None


def _looks_random(value: str) -> bool:
    """Return whether *value* looks like a signature: long, of mixed characters, and no name of a file."""
    if len(value) < _SHORTEST or _CODED.fullmatch(value) is None or _MEDIA.search(value):
        return False
    return _is_mixed(value)


def _is_mixed(value: str) -> bool:
    return any(
        len({char.isdigit() or (char.isupper() + 1) * 2 for char in run}) > 1  # two of digits, upper and lower case
        for run in _RUN.findall(value)
    )


def _says_which_file(link: _Link, others: Iterable[str]) -> bool:
    return _MEDIA.search(link.path) is not None or not _NAMES_A_FILE.isdisjoint(others)
