"""Bytes are read from where they may be read, and from nowhere else: files, hosts, redirects, rebound names."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ml_backend.errors import FetchError
from ml_backend.fetch import ImageSource, Reach, resolve

PICTURE = b"picture bytes"


class Site(BaseHTTPRequestHandler):
    """A small web site that also tries to lead astray."""

    def do_GET(self) -> None:
        answers = {
            "/a.png": (200, {}, PICTURE),
            "/moved": (302, {"Location": "/a.png"}, b""),
            "/inside": (302, {"Location": "http://169.254.169.254/latest/meta-data"}, b""),
            "/file": (302, {"Location": "file:///etc/passwd"}, b""),
            "/round": (302, {"Location": "/round"}, b""),
            "/large": (200, {}, b"x" * 5000),
        }
        status, headers, body = answers.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stays silent."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def source(root: Path, *hosts: str, names: dict[str, list[str]] | None = None) -> ImageSource:
    reach = Reach(root, hosts=frozenset(hosts), max_bytes=1000, label_studio_url="http://ls.example:8080")
    known = names or {}
    return ImageSource(reach, resolver=lambda host, _port: known.get(host, ["93.184.216.34"]))


def test_files_below_the_root_are_read(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a b.png").write_bytes(PICTURE)
    for address in (
        "/data/local-files/?d=images/a%20b.png",
        "http://ls.example:8080/data/local-files/?d=images/a b.png",
    ):
        assert source(tmp_path).fetch(address) == PICTURE


@pytest.mark.parametrize(
    "path",
    ["../secret.png", "images/../../secret.png", "/etc/hostname", "link.png", "secrets.toml", "", "images", "a\0.png"],
)
def test_no_path_leads_out_of_the_root(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    (root / "images").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (root / "secrets.toml").write_bytes(b"secret")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(FetchError):
        source(root).fetch(f"/data/local-files/?d={path}")


class Uploads:
    """Label Studio, to which every path is a file."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def fetch(self, path: str, max_bytes: int) -> bytes:
        self.asked.append(path)
        return PICTURE

    def resolved(self, task_id: int, address: str, max_bytes: int) -> bytes | str:
        return PICTURE


@pytest.mark.parametrize("path", ["../../api/users", "1/../../../api/users", "%2e%2e/%2e%2e/api/users", "..", ""])
def test_no_upload_leads_to_another_page_of_label_studio(tmp_path: Path, path: str) -> None:
    uploads = Uploads()
    with pytest.raises(FetchError, match="below the uploads"):
        ImageSource(Reach(tmp_path), uploads).fetch(f"/data/upload/{path}")
    assert ImageSource(Reach(tmp_path), uploads).fetch("/data/upload/1/a%20b.png") == PICTURE
    assert uploads.asked == ["/data/upload/1/a%20b.png"]


def test_an_allowed_host_is_read_and_its_redirects_are_followed(tmp_path: Path, port: int) -> None:
    allowed = source(tmp_path, f"127.0.0.1:{port}")
    for path in ("a.png", "moved"):
        assert allowed.fetch(f"http://127.0.0.1:{port}/{path}") == PICTURE


@pytest.mark.parametrize("path", ["inside", "file", "round", "large", "absent"])
def test_a_site_cannot_lead_astray(tmp_path: Path, port: int, path: str) -> None:
    with pytest.raises(FetchError):
        source(tmp_path, f"127.0.0.1:{port}").fetch(f"http://127.0.0.1:{port}/{path}")


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:{port}/a.png",
        "http://user@127.0.0.1:{port}/a.png",
        "http://localhost:{port}/a.png",
        "http://0x7f000001:{port}/a.png",
        "http://[::1]:{port}/a.png",
        "https://elsewhere.example/a.png",
        "http://images.example:99999/a.png",
        "ftp://images.example/a.png",
        "file:///etc/passwd",
        "gopher://x",
        "data:image/png;base64,AAAA",
        "/etc/passwd",
        "images/a.png",
        "",
        "s3://bucket/a.png",
        "/data/upload/1/a.png",
    ],
)
def test_what_is_not_listed_is_refused(tmp_path: Path, port: int, address: str) -> None:
    with pytest.raises(FetchError):
        source(tmp_path, "images.example").fetch(address.format(port=port))


@pytest.mark.parametrize(
    "inside",
    [
        "127.0.0.1",
        "10.0.0.8",
        "169.254.169.254",
        "::1",
        "fd00::1",
        "0.0.0.0",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::ffff:10.0.0.8",
    ],
)
def test_a_listed_name_that_points_inside_is_refused(tmp_path: Path, port: int, inside: str) -> None:
    rebound = source(tmp_path, f"images.example:{port}", names={"images.example": ["93.184.216.34", inside]})
    with pytest.raises(FetchError, match="public address"):
        rebound.fetch(f"http://images.example:{port}/a.png")


def test_the_address_that_was_checked_is_the_one_that_is_called(tmp_path: Path) -> None:
    asked: list[str] = []

    def resolver(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["93.184.216.34"] if len(asked) == 1 else ["127.0.0.1"]

    reach = Reach(tmp_path, hosts=frozenset({"images.invalid:9"}))
    with pytest.raises(FetchError):
        ImageSource(reach, resolver=resolver).fetch("ftp://images.invalid:9/a.png")
    assert ImageSource(reach, resolver=resolver)._checked("images.invalid", 9, "http") == "93.184.216.34"
    assert asked == ["images.invalid"]


@pytest.mark.parametrize(
    "address",
    ["s3://other/a.png", "file:///etc/passwd", "http://127.0.0.1:9/a.png", "/data/upload/../a.png", "", "\udcff"],
)
def test_an_address_inside_label_studio_s_own_is_held_to_the_same_rules(tmp_path: Path, address: str) -> None:
    encoded = base64.urlsafe_b64encode(address.encode(errors="surrogateescape")).decode()
    for path in (f"/tasks/1/resolve/?fileuri={encoded}", "/projects/1/presign/?fileuri=%%%", "/tasks/x/resolve/"):
        with pytest.raises(FetchError):
            ImageSource(Reach(tmp_path, buckets=frozenset({"skin"}))).fetch(path, 1)


def test_a_message_never_carries_a_signature(tmp_path: Path) -> None:
    with pytest.raises(FetchError) as raised:
        source(tmp_path).fetch("https://bucket.example/a.png?X-Amz-Signature=secret")
    assert "secret" not in str(raised.value)


def test_a_name_that_does_not_resolve_is_named() -> None:
    with pytest.raises(FetchError, match=r"host no-such-host\.invalid"):
        resolve("no-such-host.invalid", 80)
