"""Files that lie elsewhere: reached through fsspec, listed, and which of them make up a source.

Knows no corpus and no cell; copies nothing (`fetching.py` does). Which names make up one source is
decided by the rules for local folders, on a folder of empty files with the same names.
"""

import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from ..platform.errors import CytolakeError, SourceError
from ..platform.uris import below, has_pattern, name_of, recorded, scheme_of, scrubbed
from .sources.formats import source_files
from .sources.listing import ENDINGS, source_paths
from .sources.tenx_mtx import MATRIX_ENDINGS

MOST_FILES = 500_000
"""Files that are looked at below one URI; a store of 100 million cells has fewer."""

_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs",
    "abfss": "adlfs", "http": "aiohttp", "https": "aiohttp", "sftp": "paramiko", "ssh": "paramiko",
    "hf": "huggingface_hub", "oss": "ossfs", "webdav": "webdav4", "smb": "smbprotocol",
}  # fmt: skip
"""Scheme -> the package that fsspec needs for it."""

_MARKS = ("etag", "generation", "md5hash", "content-md5", "digest", "last-modified",
          "lastmodified", "last_modified", "updated", "mtime", "modify", "created")  # fmt: skip
"""By what file systems tell that a file is another one, the surest first."""

_SURE = ("etag ", "generation ", "md5hash ")

_WEB = ("http", "https")
_CONNECT_S, _READ_S = 20, 120


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """One file.

    Attributes:
        name: its place in the local copy: names with `/` between them.
        path: what its file system calls it.
        n_bytes: its size; None where nobody says.
        mark: an ETag or a time of change; empty where there is neither.
    """

    name: str
    path: str
    n_bytes: int | None
    mark: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteSource:
    """What a URI names, when it is one source.

    Attributes:
        uri: the URI, with whatever it takes to reach it.
        name: what the file or folder is called.
        files: those that are read, in a fixed order.
        filesystem: fsspec's, to read them with.
    """

    uri: str
    name: str
    files: tuple[RemoteFile, ...]
    filesystem: Any


@contextmanager
def reaching(uri: str) -> Generator[None]:
    """Tell whatever goes wrong at a URI as an error of ours that holds no secret.

    The cause is dropped: a library's own words may hold the URI with its signature.

    Raises:
        SourceError: nothing is there, it is not to be had, or the way to it is broken.
    """
    where = recorded(uri)
    try:
        yield
    except CytolakeError:
        raise
    except PermissionError as error:
        raise SourceError(
            f"{where}: access is denied: {_words(error, uri)}. Are the credentials in the "
            "environment, and a signed URL still valid?"
        ) from None
    except FileNotFoundError as error:
        why = error.__cause__  # the web's file system calls every trouble a missing file
        status = getattr(why, "status", None)
        if why is None or status == 404 or type(why).__name__.startswith("NoSuch"):
            raise SourceError(f"{where}: no such file or folder") from None
        raise SourceError(f"{where}: cannot be reached: {_words(why, uri)}") from None
    except Exception as error:
        hint = ""
        if type(error).__name__ == "NoCredentialsError":
            hint = ". Set AWS_PROFILE or keys; for a public bucket set FSSPEC_S3_ANON=true"
        raise SourceError(f"{where}: cannot be reached: {_words(error, uri)}{hint}") from None


def open_filesystem(uri: str) -> tuple[Any, str]:
    """The file system of a URI, and what it calls the place.

    Credentials are taken from the environment, as each file system's own documentation says.

    Raises:
        SourceError: no file system has the scheme, or its package is not installed.
    """
    import fsspec

    scheme, where = scheme_of(uri), recorded(uri)
    if "::" in scheme:
        raise SourceError(f"{where}: chained URIs are not read: give the file's own")
    if scheme not in fsspec.available_protocols():
        known = ", ".join(sorted(_PACKAGES))
        raise SourceError(f"{where}: {scheme}:// is not known; known are {known}, file, memory")
    package = _PACKAGES.get(scheme)
    missing = f"{where}: {scheme}:// needs the package {package or 'that fsspec names'}"
    if package is not None and find_spec(package) is None:
        raise SourceError(f"{missing}, which is not installed: pip install {package}")
    try:
        with reaching(uri):
            filesystem, path = fsspec.url_to_fs(uri, **_options(scheme))
            filesystem.invalidate_cache()
    except ImportError as error:
        raise SourceError(f"{missing}: {_words(error, uri)}") from None
    return filesystem, str(path)


def find_remote(uri: str) -> RemoteSource:
    """The one source that a URI names: a file, a folder, or a matrix with its parts beside it.

    Raises:
        SourceError: nothing is there, it cannot be reached, or it is no place of one source.
    """
    if has_pattern(uri):
        n_sources = len(remote_sources(uri))
        raise SourceError(
            f"{recorded(uri)}: a pattern of {n_sources} sources: an entry is one; name it, or give "
            "the pattern on the command line"
        )
    filesystem, path = open_filesystem(uri)
    name = name_of(uri)
    if name in (".", "..") or "/" in name or "\0" in name:
        raise SourceError(f"{recorded(uri)}: its last part {name!r} names no file")
    with reaching(uri):
        info = None if _is_web_folder(uri) else filesystem.info(path)
    if info is None or info["type"] == "directory":
        listed = _listed(filesystem, path, uri)
        with _skeleton({f"{name}/{inside}" for inside in listed}, uri) as folder:
            read = [p.relative_to(folder / name) for p in source_files(folder / name)]
        files = [listed[inside.as_posix()] for inside in read]
        return _source(uri, name, [_known(filesystem, f, uri, name) for f in files], filesystem)
    kind = str(info.get("mimetype", ""))
    if kind == "text/html" and not name.endswith((".html", ".htm")):
        raise SourceError(
            f"{recorded(uri)}: is a web page, not a file of cells: a page to log in, or a folder? "
            "A folder's URI ends with /"
        )
    files = [RemoteFile(name=name, path=path, n_bytes=_size(info), mark=_mark(info))]
    if name.endswith(MATRIX_ENDINGS) and "?" not in path:
        files = _with_parts(filesystem, path, uri, name) or files
    return _source(uri, name, files, filesystem)


def remote_sources(uri: str) -> list[str]:
    """The URIs of the sources that a folder or a pattern names; of a file, its own.

    A name that says what it is (`.h5ad`, `.zarr`) is not looked up: where it is not to be had,
    it is refused later, alone.

    Raises:
        SourceError: nothing fits, or the place cannot be listed.
    """
    plain = name_of(uri).lower()
    if not has_pattern(uri) and (plain.endswith((*ENDINGS, ".zarr"))):
        return [uri]
    filesystem, path = open_filesystem(uri)
    if has_pattern(uri):
        return _matching(filesystem, path, uri)
    with reaching(uri):
        if not _is_web_folder(uri) and filesystem.info(path)["type"] != "directory":
            return [uri]
    return _sources_below(filesystem, path, uri)


def _matching(filesystem: Any, path: str, uri: str) -> list[str]:
    with reaching(uri):
        options = {"on_error": "raise"} if scheme_of(uri) in _WEB else {}
        found: Mapping[str, Any] = filesystem.glob(path, detail=True, **options)
    if not found:
        raise SourceError(f"{recorded(uri)}: no file or folder fits this pattern")
    # What a file system calls a match may lack the host: only what follows the folder is taken.
    magic = min(uri.find(letter) for letter in "*[?" if letter in uri)
    tail = len(uri) - uri.rindex("/", 0, magic) - 1
    uris: list[str] = []
    for match, info in sorted(found.items()):
        whole = match if "://" in match else below(uri[:-tail], match[len(path) - tail :])
        if info["type"] == "directory":
            uris += _sources_below(filesystem, match, whole)
        else:
            uris.append(whole)
    return list(dict.fromkeys(uris))


def _sources_below(filesystem: Any, path: str, uri: str) -> list[str]:
    listed = _listed(filesystem, path, uri)
    with _skeleton(listed, uri) as folder:
        try:
            found = source_paths(folder)
        except SourceError as error:
            raise SourceError(str(error).replace(str(folder), recorded(uri))) from None
        inside = [(p.relative_to(folder.resolve()), p.is_dir()) for p in found]
    return [
        below(uri, "" if str(name) == "." else name.as_posix(), folder=is_dir)
        for name, is_dir in inside
    ]


def _listed(filesystem: Any, path: str, uri: str) -> dict[str, RemoteFile]:
    """Every file below a folder, by its name inside it.

    Raises:
        SourceError: there is none, there are too many, or a name leads out of the folder.
    """
    web = scheme_of(uri) in _WEB
    with reaching(uri):
        # the web's listing leaves out what it cannot reach, unless told to raise
        options = {"on_error": "raise"} if web else {}
        found: Mapping[str, Any] = filesystem.find(path, detail=True, **options)
        if not found:
            filesystem.info(path)  # says why, where the listing kept silent
    begin = path.rstrip("/") + "/"
    listed: dict[str, RemoteFile] = {}
    for place, info in sorted(found.items()):
        if not place.startswith(begin):
            continue
        name = place.removeprefix(begin)
        if web and ("?" in name or "#" in name):  # a page's links to sort itself
            continue
        name = unquote(name) if web else name
        if not name or name.endswith("/"):  # what marks a folder in a bucket
            continue
        parts = PurePosixPath(name).parts
        if ".." in parts or name.startswith("/") or "\0" in name or "//" in name:
            raise SourceError(f"{recorded(uri)}: the name {name!r} leads out of the folder")
        listed[name] = RemoteFile(name=name, path=place, n_bytes=_size(info), mark=_mark(info))
    if not listed:
        raise SourceError(f"{recorded(uri)}: the folder is empty")
    if len(listed) > MOST_FILES:
        raise SourceError(
            f"{recorded(uri)}: {len(listed):,} files, more than {MOST_FILES:,}: name its sources "
            "by a pattern"
        )
    return listed


def _with_parts(filesystem: Any, path: str, uri: str, name: str) -> list[RemoteFile]:
    """A matrix.mtx whose name a sample leads, and the tables that lie beside it."""
    parent = path.rpartition("/")[0]
    with reaching(uri):
        entries: Sequence[Mapping[str, Any]] = filesystem.ls(parent, detail=True)
    web = scheme_of(uri) in _WEB
    near: dict[str, RemoteFile] = {}
    for info in entries:
        place = str(info["name"])
        last = place.rstrip("/").rpartition("/")[2]
        last = unquote(last) if web else last
        if info["type"] == "file" and last and "?" not in last:
            near[last] = RemoteFile(name=last, path=place, n_bytes=_size(info), mark=_mark(info))
    if name not in near:
        return []
    with _skeleton(near, uri) as folder:
        parts = [part.name for part in source_files(folder / name)]
    return [_known(filesystem, near[part], uri) for part in parts]


def _source(uri: str, name: str, files: list[RemoteFile], filesystem: Any) -> RemoteSource:
    return RemoteSource(uri=uri, name=name, files=tuple(files), filesystem=filesystem)


def _known(filesystem: Any, file: RemoteFile, uri: str, folder: str = "") -> RemoteFile:
    """A file with its size and mark, asked for where a listing does not tell them surely.

    Times of change are told by listings in other ways, and to another precision.
    """
    name = f"{folder}/{file.name}" if folder else file.name
    if file.n_bytes is not None and file.mark.startswith(_SURE):
        return RemoteFile(name=name, path=file.path, n_bytes=file.n_bytes, mark=file.mark)
    return look_again(filesystem, RemoteFile(name=name, path=file.path, n_bytes=None, mark=""), uri)


def look_again(filesystem: Any, file: RemoteFile, uri: str) -> RemoteFile:
    """A file as it is now.

    Raises:
        SourceError: it is gone, or cannot be reached.
    """
    with reaching(uri):
        filesystem.invalidate_cache()
        info = filesystem.info(file.path)
    return RemoteFile(name=file.name, path=file.path, n_bytes=_size(info), mark=_mark(info))


@contextmanager
def _skeleton(names: "set[str] | Mapping[str, RemoteFile]", uri: str) -> Generator[Path]:
    """A folder of empty files with these names, for the rules that look at local folders."""
    with tempfile.TemporaryDirectory(prefix="cytolake-names-") as folder:
        root = Path(folder).resolve()
        for name in names:
            place = root / name
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
            except OSError as error:
                raise SourceError(
                    f"{recorded(uri)}: the name {name!r} cannot be a file here: {error.strerror}"
                ) from None
        yield root


def _options(scheme: str) -> dict[str, Any]:
    """How patient to be; what the environment says of proxies and keys holds beside it."""
    if scheme in _WEB:
        from aiohttp import ClientTimeout

        # No total: a large file takes hours. Bytes as they are: a served .csv.gz stays one.
        timeout = ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S)
        client = {"timeout": timeout, "trust_env": True, "auto_decompress": False}
        return {"client_kwargs": client, "headers": {"Accept-Encoding": "identity"}}
    if scheme in ("s3", "s3a"):
        patience = {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S}
        return {"config_kwargs": {**patience, "retries": {"max_attempts": 3}}}
    return {}


def _is_web_folder(uri: str) -> bool:
    return scheme_of(uri) in _WEB and "?" not in uri and uri.endswith("/")


def _size(info: Mapping[str, Any]) -> int | None:
    return None if info.get("size") is None else int(info["size"])


def _mark(info: Mapping[str, Any]) -> str:
    lowered = {str(name).lower(): value for name, value in info.items()}
    for name in _MARKS:
        if lowered.get(name):
            return f"{name} {lowered[name]}"
    return ""


def _words(error: BaseException, uri: str) -> str:
    said = scrubbed(" ".join(str(error).split()), uri)
    return f"{type(error).__name__}: {said[:300]}"
