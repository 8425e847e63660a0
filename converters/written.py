"""What a conversion has written, kept until it is read back: first in memory, then in a file without name."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import IO

from converters.dataset import DatasetItem, decode_line, encode_item
from converters.formats.contract import Placed
from converters.geometry import ImageSize

_IN_MEMORY = 2_000


class Written:
    """Items by the stem of their name in the target, or by address where no bytes were copied."""

    def __init__(self, addresses: bool, in_memory: int = _IN_MEMORY) -> None:
        self._keep_addresses = addresses
        self._in_memory = in_memory
        self._items: dict[str, Placed | tuple[str, int, int]] = {}
        self._sizes: dict[str, ImageSize] = {}
        self._known_sizes: dict[ImageSize, ImageSize] = {}
        self._addresses: dict[str, str] = {}
        self._spool: IO[bytes] | None = None
        self.taken = 0

    def add(self, placed: Placed) -> None:
        """Note an item."""
        record = placed.item.record
        stem = placed.stem
        self._sizes[stem] = self._known_sizes.setdefault(record.size, record.size)
        if self._keep_addresses and placed.image is None:
            self._addresses[record.uri] = stem
        if len(self._items) < self._in_memory:
            self._items[stem] = placed
            return
        self._spool = self._spool or tempfile.TemporaryFile()  # noqa: SIM115
        line = encode_item(placed.item)
        self._items[stem] = (sys.intern(placed.name[len(stem) :]), self._spool.tell(), len(line))
        self._spool.write(line)

    def sizes(self) -> Mapping[str, ImageSize]:
        """Image sizes by stem."""
        return self._sizes

    def take(self, uri: str) -> Placed | None:
        """The item written under this address or name, which is then no longer expected; None if there is none."""
        name = PurePosixPath(uri).name
        for key in (self._addresses.get(uri, ""), name.rpartition(".")[0], name):
            if key in self._items:
                found = self._items.pop(key)
                self.taken += 1
                return found if isinstance(found, Placed) else self._loaded(key, found)
        return None

    def left(self) -> Iterator[Placed]:
        """The items that were never taken."""
        for stem, found in self._items.items():
            yield found if isinstance(found, Placed) else self._loaded(stem, found)

    def close(self) -> None:
        """Give back the file without name."""
        if self._spool is not None:
            self._spool.close()

    def _loaded(self, stem: str, place: tuple[str, int, int]) -> Placed:
        suffix, start, length = place
        name = f"{stem}{suffix}"
        assert self._spool is not None
        self._spool.seek(start)
        item: DatasetItem = decode_line(self._spool.read(length), name)
        return Placed(item, name)
