"""The parameters that known signers of links add: storage services and content delivery networks. Pure."""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

from heygen_async.bulk.link import Link


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

    def signs(self, link: Link) -> bool:
        return (
            self.marks <= link.values.keys()
            and (self.host is None or self.host.search(link.host) is not None)
            and (self.path is None or self.path.search(link.path) is not None)
            and (self.shape is None or all(self.shape.search(link.values[name]) for name in self.marks))
        )


def _signer(marks: str, adds: str = "", *, host: str = "", path: str = "", shape: str = "") -> _Signer:
    return _Signer(
        frozenset(marks.split()),
        frozenset(f"{marks} {adds}".split()),
        *(re.compile(pattern, re.IGNORECASE) if pattern else None for pattern in (host, path, shape)),
    )


def _prefixed(prefix: str, names: str) -> str:
    return " ".join(f"{prefix}{name}" for name in names.split())


MEDIA: Final = re.compile(r"\.(?:mp4|m4v|webm|mov|mkv|avi|mpe?g|wmv|3gp|mp3|wav|m4a|aac|ogg|flac)$", re.IGNORECASE)
"""The end of the name of a media file."""

_AZURE: Final = "ss srt sr st se sp sip spr si sdd sks skt ske skv skoid sktid saoid suoid scid ses"
_V4: Final = "algorithm credential date expires signedheaders security-token"

_SIGNERS: Final = (
    # AWS Signature V4: S3, R2, B2, Wasabi, Spaces, MinIO, Yandex, ...
    _signer("x-amz-signature", _prefixed("x-amz-", f"{_V4} user-agent content-sha256") + " x-amzn-trace-id"),
    _signer("awsaccesskeyid signature", "expires x-amz-security-token x-amzn-trace-id"),
    _signer("x-goog-signature", _prefixed("x-goog-", _V4)),
    _signer("googleaccessid signature", "expires"),
    # CloudFront, and Google's CDNs. With the general names of those, a parameter may say which file is meant.
    _signer("key-pair-id signature", "expires policy hash-algorithm"),
    _signer("expires keyname signature", path=MEDIA.pattern),
    _signer("urlprefix keyname signature", "expires", path=MEDIA.pattern),
    # Azure: account, service and user delegation SAS. `sv` is a date, and `sig` a digest.
    _signer("sig sv", _AZURE, host=r"\.(?:core\.windows\.net|core\.[a-z]+api\.(?:cn|net)|storage\.azure\.net)$"),
    _signer("sig sv", _AZURE, path=MEDIA.pattern, shape=r"^(?:\d{4}-\d\d-\d\d|.{20,})$"),
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
    _signer("e", host=r"\.sharepoint\.com$|^1drv\.ms$", shape=r"^[A-Za-z0-9]{6}$"),  # another one in each shared link
    _signer("temp_url_sig temp_url_expires", "temp_url_prefix temp_url_ip_range"),  # OpenStack Swift: OVH, Ceph, ...
    _signer("ik-s", "ik-t", shape=r"^[0-9a-f]{40}$"),  # ImageKit
    _signer("__cld_token__"),  # Cloudinary
    _signer("_upt", "_upp", shape=r"^[0-9a-f]{8}\d{10}$"),  # Upyun
    _signer("pbs pbe", "pbt", host=r"\.pixelbin\.io$"),
    _signer("sig sv jwt", f"{_AZURE} rscd rsct", host=r"\.githubusercontent\.com$"),  # GitHub
    _signer("x-signature x-date", "x-algorithm x-expires x-method", host=r"\.mypinata\.cloud$"),
    _signer("token", host=r"(?:^|\.)(?:ucarecdn\.com|ucarecd\.net)$"),  # Uploadcare
    _signer("at", "uuid confirm", host=r"^drive\.usercontent\.google\.com$"),
    _signer("oh oe", "_nc_ohc _nc_oc _nc_gid _nc_sid", host=r"\.(?:fbcdn\.net|cdninstagram\.com)$"),
    _signer("ks", host=r"\.kaltura\.com$"),
    _signer("__gda__", shape=r"^\d{10}_[0-9a-f]{32}$"),  # Akamai
    _signer("wowzatokenhash", "wowzatokenstarttime wowzatokenendtime"),
    _signer("hwsecret hwtime"),  # Huawei's CDN
    _signer("token", "e", shape=r"^[A-Za-z0-9_\-]{40}:[A-Za-z0-9_\-]{27}=$"),  # Qiniu
)


_SIGNED_PATH: Final = re.compile(
    r"https?://(?:[^/]*\.)?(?:airtableusercontent\.com/v3/|dl\.dropboxusercontent\.com/cd/|boxcloud\.com/d/"
    r"|1drv\.com/y4m|oraclecloud\.com/p/|video-downloads\.googleusercontent\.com/|mediafire\.com/[a-z0-9]{10,}/"
    r"|pcloud\.com/[a-z0-9]{40,}/|filestackcontent\.com/(?:[^?]*/)?security=)"
    r"|[^?]*(?:/token/[0-9a-f\-]{32,}/|/ks/[^/]{20,}/)",
    re.IGNORECASE,
)
"""Signatures in the path: of Airtable, Dropbox, Box, OneDrive, Oracle, Google Photos, MediaFire, pCloud, Filestack,
api.video and Kaltura."""


def signs_path(url: str) -> bool:
    """Return whether a known signer has signed *url* in its path."""
    return _SIGNED_PATH.match(url) is not None


def added_by_signers(link: Link) -> frozenset[str]:
    """Return the names of the parameters that the signers of *link* have added, if they are known.

    What is the name of a file is not among them, whatever the name of its parameter.
    """
    names = frozenset().union(*(signer.adds for signer in _SIGNERS if signer.signs(link))) & link.values.keys()
    return frozenset(name for name in names if not MEDIA.search(link.values[name]))
