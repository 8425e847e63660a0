"""Child processes that do not outlive the one that started them, even where that one was killed outright."""

from __future__ import annotations

import os
import threading
import time

_POLL_SECONDS = 1.0


def end_with_parent() -> None:
    """Ends this process within about a second of its parent's end; returns at once."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
