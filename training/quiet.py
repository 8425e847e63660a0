"""Keeps what the training libraries print out of a command's own output: it goes to the run's log file."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from training.runs import Run


@contextlib.contextmanager
def quiet(run: Run, log: Path) -> Iterator[Run]:
    """The run, with everything printed inside the block sent to a log file, except what its watcher prints."""
    out, err = sys.stdout, sys.stderr

    def aloud(part: str, done: int, total: int, text: str) -> None:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run.watcher(part, done, total, text)

    with (
        log.open("a", encoding="utf-8") as stream,
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
    ):
        yield replace(run, watcher=aloud)


@contextlib.contextmanager
def children_to(log: Path) -> Iterator[None]:
    """Sends what child processes print on standard output inside the block to a log file: it is no JSON of ours."""
    kept = os.dup(1)
    try:
        with log.open("ab") as stream:
            os.dup2(stream.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Discards what libraries and their native code print inside the block; errors are raised as ever."""
    with Path(os.devnull).open("w") as nowhere, without_native_messages(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                yield
        finally:
            logging.disable(logging.NOTSET)


@contextlib.contextmanager
def without_native_messages() -> Iterator[None]:
    """Discards what native code writes to the error stream inside the block: TensorFlow greets unasked."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
