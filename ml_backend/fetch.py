"""Reads image bytes from where tasks point to, and from nowhere else.

Local paths stay below configured roots. Hosts and buckets are allow-listed; a name is resolved once, every address it
has must be public, and the connection goes to the address that was checked, so that neither a redirect nor a second
DNS answer leads elsewhere.
"""

from __future__ import annotations

import base64
import ipaddress
import posixpath
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs, unquote, urljoin, urlsplit

import certifi
import urllib3

from ml_backend.errors import FetchError, ProtocolError

_RESOLVED = re.compile(r"/(tasks|projects)/[0-9]+/(presign|resolve)/?")
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_UPLOADS = "/data/upload/"
_REDIRECTS = 3
_TIMEOUT = urllib3.Timeout(connect=3.0, read=15.0)
_CHUNK = 1 << 16
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")

Resolver = Callable[[str, int], list[str]]


class UploadReader(Protocol):
    """Reads a file that Label Studio keeps, with its token."""

    def fetch(self, path: str, max_bytes: int) -> bytes:
        """The bytes behind a path of Label Studio such as `/data/upload/1/a.jpg`."""
        ...

    def resolved(self, task_id: int, address: str, max_bytes: int) -> bytes | str:
        """An object that Label Studio can reach, such as `s3://bucket/key`: its bytes, or a presigned address."""
        ...


class ObjectReader(Protocol):
    """Reads an object of a store."""

    def read(self, bucket: str, key: str, max_bytes: int) -> bytes:
        """The bytes of an object."""
        ...


class Task(Protocol):
    """A task of Label Studio, whose data names its picture."""

    @property
    def id(self) -> int | None:
        """Its number, None where it has none yet."""
        ...

    @property
    def item(self) -> str:
        """How it is called in messages."""
        ...

    def get(self, field: str) -> str | None:
        """The value of a data field, or None where it is absent or no text."""
        ...


@dataclass(frozen=True, slots=True)
class Reach:
    """What may be read: folders, hosts (`name` or `name:port`), buckets, and how many bytes of each picture."""

    image_root: Path
    upload_root: Path | None = None
    label_studio_url: str | None = None
    hosts: frozenset[str] = frozenset()
    buckets: frozenset[str] = frozenset()
    max_bytes: int = 50_000_000


def resolve(host: str, port: int) -> list[str]:
    """Every address of a host; raises FetchError where it has none."""
    try:
        return sorted({str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
    except OSError as error:
        raise FetchError(f"host {host}", str(error), "a name that resolves", "Correct the address.") from error


class ImageSource:
    """One reader for every kind of address a task may carry."""

    def __init__(
        self,
        reach: Reach,
        uploads: UploadReader | None = None,
        objects: ObjectReader | None = None,
        resolver: Resolver = resolve,
    ) -> None:
        self._reach = reach
        self._uploads = uploads
        self._objects = objects
        self._resolver = resolver

    def fetch(self, address: str, task_id: int | None = None) -> bytes:
        """The bytes of a picture; raises FetchError where the address may not be read or does not answer."""
        path = self._own_path(address)
        parts = urlsplit(path)
        if parts.scheme == "s3":
            return self._object(path, parts.netloc, parts.path.lstrip("/"), task_id)
        if parts.scheme in ("http", "https"):
            return self._web(path)
        if parts.scheme:
            raise FetchError(_shown(address), parts.scheme, "http, https, s3 or a path", "Import the image again.")
        if parts.path.startswith("/data/local-files"):
            return self._file(self._reach.image_root, parse_qs(parts.query).get("d", [""])[0])
        if parts.path.startswith(_UPLOADS):
            return self._upload(parts.path)
        if _RESOLVED.fullmatch(parts.path):
            return self._stored(parse_qs(parts.query).get("fileuri", [""])[0], task_id)
        raise FetchError(_shown(address), parts.path[:80], "an address that a task can carry", "Import it again.")

    def fetch_of(self, task: Task, field: str) -> bytes:
        """The bytes of the picture that a task's data names under a field; raises ProtocolError where it names none."""
        if (address := task.get(field)) is None:
            cure = "Name the image in the labelling config's Image tag."
            raise ProtocolError(task.item, None, f"the address of a picture under {field!r}", cure)
        return self.fetch(address, task.id)

    def _stored(self, encoded: str, task_id: int | None) -> bytes:
        """The object that Label Studio's own address for it names."""
        try:
            address = base64.urlsafe_b64decode(encoded).decode()
        except ValueError as error:
            expected = "an object's address in base64"
            raise FetchError("address of a stored image", "its fileuri", expected, "Import it again.") from error
        parts = urlsplit(address)
        if parts.scheme != "s3":
            raise FetchError(_shown(address), parts.scheme, "an object in S3", "Connect an S3 storage.")
        return self._object(address, parts.netloc, parts.path.lstrip("/"), task_id)

    def _own_path(self, address: str) -> str:
        own = (self._reach.label_studio_url or "").rstrip("/")
        return address[len(own) :] if own and address.startswith(own + "/") else address

    def _upload(self, path: str) -> bytes:
        if not posixpath.normpath(unquote(path)).startswith(_UPLOADS):
            raise FetchError(f"upload {path[:200]}", "outside", "a file below the uploads", "Import it again.")
        if self._reach.upload_root is not None:
            return self._file(self._reach.upload_root, unquote(path.removeprefix("/data/")))
        if self._uploads is None:
            cure = "Set DERMLOOP_ML_LABEL_STUDIO_URL and DERMLOOP_ML_LABEL_STUDIO_TOKEN."
            raise FetchError(path, "no access", "a way to Label Studio's uploads", cure)
        return self._uploads.fetch(path, self._reach.max_bytes)

    def _file(self, root: Path, relative: str) -> bytes:
        try:
            path = (root / relative).resolve()
            if not path.is_relative_to(root.resolve()) or path.suffix.lower() not in _SUFFIXES:
                raise FetchError(f"local file {relative}", "outside", "an image below the image root", "Move it there.")
            if (size := path.stat().st_size) > self._reach.max_bytes:
                raise FetchError(f"local file {relative}", size, f"at most {self._reach.max_bytes}", "Scale it down.")
            return path.read_bytes()
        except (OSError, ValueError) as error:
            found = type(error).__name__
            raise FetchError(f"local file {relative[:200]}", found, "a readable file", "Restore the file.") from error

    def _object(self, address: str, bucket: str, key: str, task_id: int | None) -> bytes:
        if bucket not in self._reach.buckets:
            cure = "Add it to DERMLOOP_ML_ALLOWED_BUCKETS."
            raise FetchError(f"bucket {bucket}", "not listed", "an allowed bucket", cure)
        if self._objects is not None:
            return self._objects.read(bucket, key, self._reach.max_bytes)
        if self._uploads is None or task_id is None:
            raise FetchError(_shown(address), "no access", "credentials or Label Studio's presign", "Configure one.")
        found = self._uploads.resolved(task_id, address, self._reach.max_bytes)
        return found if isinstance(found, bytes) else self._web(found)

    def _web(self, address: str) -> bytes:
        for _ in range(_REDIRECTS + 1):
            response = self._get(address)
            try:
                if not 300 <= response.status < 400:
                    return _body(response, address, self._reach.max_bytes)
                address = urljoin(address, response.headers.get("Location", ""))
            finally:
                response.release_conn()
                response.close()
        raise FetchError(_shown(address), "redirects without end", f"at most {_REDIRECTS}", "Use the final address.")

    def _get(self, address: str) -> urllib3.BaseHTTPResponse:
        parts = urlsplit(address)
        host, secure = parts.hostname or "", parts.scheme == "https"
        port = _port(address) or (443 if secure else 80)
        ip = self._checked(host, port, parts.scheme)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            return _pool(ip, port, host if secure else None).urlopen(
                "GET", target, headers={"Host": parts.netloc.rsplit("@", 1)[-1]}, redirect=False, retries=False,
                timeout=_TIMEOUT, preload_content=False, decode_content=False,
            )  # fmt: skip
        except (urllib3.exceptions.HTTPError, UnicodeError) as error:
            found = type(error).__name__
            raise FetchError(_shown(address), found, "an answer", "Check that the host is up.") from error

    def _checked(self, host: str, port: int, scheme: str) -> str:
        if scheme not in ("http", "https") or not {host, f"{host}:{port}"} & self._reach.hosts:
            raise FetchError(f"host {host}", "not listed", "an allowed host", "Add it to DERMLOOP_ML_ALLOWED_HOSTS.")
        if _is_address(host):
            return host
        addresses = self._resolver(host, port)
        for address in addresses:
            if not _is_public(address):
                cure = "List the address itself where a private host is meant."
                raise FetchError(f"host {host}", address, "a public address", cure)
        return addresses[0]


def _pool(ip: str, port: int, tls_name: str | None) -> urllib3.HTTPConnectionPool:
    if tls_name is None:
        return urllib3.HTTPConnectionPool(ip, port)
    return urllib3.HTTPSConnectionPool(
        ip,
        port,
        server_hostname=tls_name,
        assert_hostname=tls_name,
        cert_reqs="CERT_REQUIRED",
        ca_certs=certifi.where(),
    )


def _body(response: urllib3.BaseHTTPResponse, address: str, max_bytes: int) -> bytes:
    if response.status != 200:
        raise FetchError(_shown(address), f"status {response.status}", "status 200", "Check the address.")
    content = bytearray()
    try:
        for chunk in response.stream(_CHUNK):
            content += chunk
            if len(content) > max_bytes:
                raise FetchError(_shown(address), "more bytes", f"at most {max_bytes}", "Scale the image down.")
    except urllib3.exceptions.HTTPError as error:
        raise FetchError(_shown(address), type(error).__name__, "a whole answer", "Try again.") from error
    return bytes(content)


def _port(address: str) -> int | None:
    try:
        return urlsplit(address).port
    except ValueError as error:
        raise FetchError(_shown(address), "its port", "a port from 1 to 65535", "Correct the address.") from error


def _is_public(address: str) -> bool:
    """Whether an address lies outside, the IPv4 address that an IPv6 one may carry in itself included."""
    found = ipaddress.ip_address(address.split("%")[0])
    carried: tuple[ipaddress.IPv4Address | None, ...] = ()
    if isinstance(found, ipaddress.IPv6Address):
        translated = ipaddress.IPv4Address(found.packed[12:]) if found in _TRANSLATED else None
        carried = (found.ipv4_mapped, found.sixtofour, found.teredo[1] if found.teredo else None, translated)
    return found.is_global and all(inner is None or inner.is_global for inner in carried)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _shown(address: str) -> str:
    """An address fit for a message: without its query, which may carry a signature."""
    return f"image {address.split('?')[0][:200]}"
