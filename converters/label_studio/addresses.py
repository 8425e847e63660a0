"""Image addresses as Label Studio writes them, and the files in a folder that they mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from converters.errors import ImageError

_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")


@dataclass(frozen=True, slots=True)
class ImageAddress:
    """What an address says of the file: its path inside its store, without query, and the store's kind."""

    kind: str
    path: str

    @property
    def name(self) -> str:
        """File name without folders."""
        return self.path.rpartition("/")[2]


def parse_address(text: str, item: str) -> ImageAddress:
    """The parts of `/data/upload/…`, `/data/local-files/?d=…`, `s3://…` (gs, azure-blob), `http(s)://…` or a path.

    Raises ImageError naming `item` where the address names no file.
    """
    kind, path = _split(text)
    found = ImageAddress(kind, path.replace("\\", "/").strip("/"))
    if found.name in ("", ".", "..") or "\0" in path:
        raise ImageError(item, text[:200], "an address that ends in a file name", "Correct the task's image.")
    return found


def _split(text: str) -> tuple[str, str]:
    if text.startswith("data:"):
        return "embedded", ""
    if "?" not in text and "%" not in text and not text.startswith("http"):
        scheme, mark, path = text.partition("://")
        if mark:
            return scheme, path.partition("/")[2]
        return ("upload" if text.startswith("/data/upload/") else "path"), text.removeprefix("/data/upload/")
    try:
        parts = urlsplit(text)
    except ValueError:
        return "path", text
    if parts.path.endswith("/data/local-files/"):
        return "local-files", unquote(parse_qs(parts.query).get("d", [""])[0])
    if "/data/upload/" in parts.path:
        return "upload", unquote(parts.path.partition("/data/upload/")[2])
    if parts.scheme in ("http", "https"):
        return "http", unquote(parts.path)
    if parts.scheme:
        return parts.scheme, text.partition("://")[2].partition("/")[2]
    return "path", text


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The image files of a folder tree, found by the longest matching end of a path."""

    root: Path
    by_name: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)

    @classmethod
    def scan(cls, root: Path) -> ImageFolder:
        """The files of a folder and all folders below; raises ImageError where it is no folder."""
        if not root.is_dir():
            raise ImageError(str(root), "no folder", "a folder of images", "Name another folder.")
        names: dict[str, list[Path]] = {}
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            names.setdefault(path.name, []).append(path)
        return cls(root, {name: tuple(paths) for name, paths in names.items()})

    def find(self, address: ImageAddress, item: str) -> Path:
        """The one file that the address means; raises ImageError naming `item` where there is none or several."""
        for name in _spellings(address.name):
            found = self._best(self.by_name.get(name, ()), PurePosixPath(address.path))
            if len(found) == 1:
                return found[0]
            if found:
                shown = ", ".join(str(path.relative_to(self.root)) for path in found[:3])
                raise ImageError(item, shown, f"one file for {address.path}", "Name a folder without the others.")
        raise ImageError(item, address.path, f"a file under {self.root}", "Copy the image there.")

    def _best(self, candidates: tuple[Path, ...], wanted: PurePosixPath) -> list[Path]:
        shared = {path: _shared_end(path.relative_to(self.root).parts, wanted.parts) for path in candidates}
        most = max(shared.values(), default=0)
        return [path for path, length in shared.items() if length == most]


def _spellings(name: str) -> Iterator[str]:
    yield name
    if _UPLOAD_PREFIX.match(name):
        yield name[9:]


def _shared_end(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    length = 0
    for a, b in pairs:
        if a != b:
            break
        length += 1
    return length
