"""Runs `dermloop` commands one after another, each in a child of a process that has imported everything once.

Reads a line of JSON with words, folder and environment; answers with a line of JSON: exit status and what was said.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    """Answers until its input ends."""
    import converters.convert
    import dermloop.cli
    import dermloop.ingest
    import review_workflow.service

    assert dermloop.cli and dermloop.ingest and review_workflow.service and converters.convert
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(json.loads(line))) + "\n")
        sys.stdout.flush()


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            _become(asked, said.fileno())
        _, status = os.waitpid(child, 0)
        said.seek(0)
        text = said.read().decode(errors="replace")
    return {"status": os.waitstatus_to_exitcode(status), "said": text}


def _become(asked: dict[str, Any], descriptor: int) -> None:
    """The child: the command itself; never returns."""
    from dermloop.cli import main as command

    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    status = 1
    with contextlib.suppress(BaseException):
        os.chdir(Path(asked["folder"]))
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv = asked["words"]
        status = 0
        try:
            command()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException as error:  # noqa: BLE001 - the child ends here and says with what
            print(f"{type(error).__name__}: {error}")
            status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
