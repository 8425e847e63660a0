"""Commands as the packages' READMEs word them, written out as somebody would type them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

_FENCE = re.compile(r"^ *```[a-z]*\n(.*?)^ *```", re.S | re.M)
_INLINE = re.compile(r"`((?:dermloop|make|python|docker|gunicorn|label-studio-ml|pip) [^`]+)`")
_BEGINS = ("dermloop ", "make ", "docker ", "python ", "gunicorn ", "label-studio-ml ", "pip ")
FILLED = {
    "EMAIL": "qa@clinic.example",
    "ROLE": "qa",
    "ENVIRONMENT": ".venv-label-studio",
    "FILE": "backup.tar",
    "REASON": "blurred",
    "TEXT": "blurred",
    "TASK": "1",
    "SRC": "pictures",
    "DST": "readme-boxes",
    "OLD": "own-taxonomy.toml",
    "DIR": "pictures",
    "F": "policy.toml",
    "N": "1",
    "A": "pictures",
    "B": "boxes",
    "NAME": "readme-run",
    "SOURCE": "pictures",
    "table.csv": "pictures/metadata.csv",
    "…": "because",
}


def written_out(text: str) -> Iterator[str]:
    """Each command of a README: fenced or inline, without options in brackets, one for each choice of words."""
    fenced = [line for block in _FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    inline = _INLINE.findall(_FENCE.sub("", text))
    for line in (*fenced, *inline):
        if line.startswith(_BEGINS):
            yield from _choices(line.replace("\\|", "|"))


def _choices(line: str) -> Iterator[str]:
    """The commands that a synopsis stands for: `a b|c` is `a b` and `a c`; so is `a b | c` for longer ends."""
    plain = re.sub(r"\[[^]]*\]", "", re.split(r"   |\s#|  (?=[a-z])", line)[0]).strip()
    first, *others = [part.split() for part in plain.split(" | ")]
    head = list(itertools.takewhile(str.islower, first))[:-1]
    for words in (first, *([*head, *other] for other in others)):
        for chosen in itertools.product(*(word.split("|") for word in words)):
            yield " ".join(FILLED.get(word, word) for word in chosen)
