"""A candidate that is worse on purpose, offered to the same gate: it must be refused, and the reasons must be named."""

from __future__ import annotations

import time

from dermloop.errors import LoopError
from dermloop.freeze import latest
from dermloop.home import Home
from dermloop.retraining import read_config
from dermloop.stages import StageLine
from training import registry
from training.decoy import worse_candidate
from training.retrain import decide, evaluate


def offer_worse_candidate(home: Home) -> StageLine:
    """The gate's answer to the champion's weights drowned in noise: whether it passed, and every reason against it.

    Raises LoopError before the first promotion.
    """
    began = time.monotonic()
    champion = registry.champion(home.models)
    if champion is None:
        raise LoopError("champion", None, "a promoted bundle", "Run `dermloop up` first.")
    version, config = latest(home.root / "datasets"), read_config(home)
    offered = evaluate(worse_candidate(champion, home.models), version, config)
    decision = decide(offered, evaluate(champion, version, config), config)
    counts = {"passed": decision.passed, "policy": decision.policy, "reasons": list(decision.reasons)}
    return StageLine("worse candidate", time.monotonic() - began, counts)
