"""MkDocs' hook: pages that are generated from the code, and pages that nobody put into the navigation yet."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_HERE = Path(__file__).parent
_OTHERS = "Operations"
_SHOT = re.compile(r'(<img [^>]*src="([^"]+\.png)"[^>]*>)')


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The configuration with every page at the top of docs/ in the navigation."""
    nav: list[dict[str, Any]] = config.nav or []
    listed = {page for section in nav for pages in section.values() for page in pages}
    found = sorted(path.name for path in Path(config.docs_dir).glob("*.md"))
    section = next(pages for part in nav for name, pages in part.items() if name == _OTHERS)
    section += [name for name in found if name not in listed]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of docs/ and the generated reference."""
    for name, text in _reference().pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_content(html: str, **_others: Any) -> str:
    """The page with each screenshot as a link to itself: on a phone it is read by opening it."""
    return _SHOT.sub(r'<a href="\2">\1</a>', html)


def _reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_reference", _HERE / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
