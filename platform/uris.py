"""What a URI says, and what of it may be written down: never a password, never a signature.

Knows no file system; knows no cell. Whoever writes a place into a log, a receipt or an error
writes `recorded(uri)`, and what another library said about it goes through `scrubbed`.
"""

import hashlib
import re
from urllib.parse import parse_qsl, quote, unquote, urlencode

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]+://")
_URI_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^\s'\"<>]+")
_PORT = re.compile(r":\d*$")
_HARMLESS = {"acc", "file", "format", "versionId"}
"""Settings in a query that name a file: GEO's downloads and a bucket's versions."""
_PLAIN = re.compile(r"[\w.-]{1,200}")
_SIGNING = re.compile(
    r"x-(amz|goog|ms)-.*|signature|expires|awsaccesskeyid|googleaccessid|key-pair-id|policy|"
    r"sig|se|st|sp|sv|sr|token|access_token",
    re.IGNORECASE,
)
"""Settings in a query that say who may read a file, and for how long, not which file it is."""
_SHORTEST_SECRET = 4
_BUCKETS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "hf"}
"""Schemes whose first part names a bucket: it has no port."""


def is_uri(text: str) -> bool:
    """Whether a word names a place by a scheme: `s3://...`, not `/data/a.h5ad` or `C:/a.h5ad`."""
    return _URI.match(text) is not None


def scheme_of(uri: str) -> str:
    """The scheme in lower case: `s3`."""
    return uri.partition("://")[0].lower()


def has_pattern(uri: str) -> bool:
    """Whether the path of a URI is a pattern. On the web a `?` begins a query and is none."""
    path = _path_of(uri)
    return any(letter in path for letter in "*[") or ("?" in path and not _is_web(uri))


def name_of(uri: str) -> str:
    """The last part of a URI's path; GEO's download page names the file in its query."""
    if _is_web(uri):
        named = dict(parse_qsl(_query_of(uri))).get("file", "")
        if _PLAIN.fullmatch(named):
            return named
    last = _path_of(uri).rstrip("/").rpartition("/")[2]
    return (unquote(last) if _is_web(uri) else last) or "source"


def below(uri: str, path: str, *, folder: bool = False) -> str:
    """The URI of what lies below a folder.

    Args:
        uri: the folder.
        path: names with `/` between them, as they are called (not quoted).
        folder: whether it is a folder itself: on the web only a `/` at the end says so.
    """
    if not path:
        return uri
    web = _is_web(uri)
    inside = quote(path) if web else path
    return f"{uri.rstrip('/')}/{inside}{'/' if web and folder else ''}"


def recorded(uri: str) -> str:
    """A URI as it may stand on record: without user, password, signature and fragment."""
    scheme, _, rest = uri.partition("://")
    rest = rest[len(_userinfo(uri)) :]
    query = _query_of(uri)
    plain = rest[: len(rest) - len(rest.partition("?")[2]) - 1] if query else rest
    if _is_web(uri):
        plain = plain.partition("#")[0]
    pairs = [(k, v) for k, v in parse_qsl(query) if k in _HARMLESS and _PLAIN.fullmatch(v)]
    return f"{scheme}://{plain}{'?' if pairs else ''}{urlencode(pairs)}"


def uris_recorded(text: str) -> str:
    """A text with every URI in it as it may stand on record."""
    return _URI_IN_TEXT.sub(lambda found: recorded(found[0]), text)


def scrubbed(text: str, uri: str) -> str:
    """What a library said about a URI, without what may not be on record.

    Args:
        text: the library's words: they may hold the URI whole, in part or spelled otherwise.
        uri: the URI as it was given.
    """
    text = uris_recorded(text)
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        for spelled in {secret, unquote(secret), quote(unquote(secret), safe="")}:
            text = text.replace(spelled, "***")
    return text


def identity(uri: str) -> str:
    """A hash that names what a URI names: the same whoever signed it, and until when.

    Returns:
        24 hex digits.
    """
    scheme, _, rest = uri.partition("://")
    path = _path_of(uri)
    query = [(k, v) for k, v in parse_qsl(_query_of(uri)) if not _SIGNING.fullmatch(k)]
    host = rest[len(_userinfo(uri)) :].partition("/")[0].partition("?")[0]
    text = "\n".join([scheme.lower(), host, path.rstrip("/"), urlencode(sorted(query))])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _is_web(uri: str) -> bool:
    return scheme_of(uri) in ("http", "https")


def _userinfo(uri: str) -> str:
    """What stands before the host, the `@` included; the secret of a bucket may hold a `/`."""
    scheme, _, rest = uri.partition("://")
    may_have_port = scheme.lower() not in _BUCKETS
    first = rest.partition("/")[0].partition("?")[0]
    if "@" in first:
        return first[: first.rindex("@") + 1]
    spoken = ":" in first and not (may_have_port and _PORT.search(first))
    before_query = rest.partition("?")[0]
    return before_query[: before_query.rindex("@") + 1] if spoken and "@" in before_query else ""


def _query_of(uri: str) -> str:
    """The query; outside the web only where it looks like one, for there `?` is a pattern's."""
    query = uri.partition("://")[2].partition("?")[2]
    if _is_web(uri):
        return query.partition("#")[0]
    return query if re.match(r"[^/=?]+=", query) else ""


def _path_of(uri: str) -> str:
    rest = uri.partition("://")[2]
    rest = rest[len(_userinfo(uri)) :]
    if _query_of(uri):
        rest = rest.partition("?")[0]
    if _is_web(uri):
        rest = rest.partition("#")[0].partition("?")[0]
    host, _, path = rest.partition("/")
    return path if path or scheme_of(uri) != "memory" else host


def _secrets(uri: str) -> set[str]:
    user, _, password = _userinfo(uri).removesuffix("@").partition(":")
    found = {user, password}
    for pair in _query_of(uri).split("&"):
        name, _, value = pair.partition("=")
        if name not in _HARMLESS or not _PLAIN.fullmatch(value):
            found.add(value)
    return {secret for secret in found if len(secret) >= _SHORTEST_SECRET}
