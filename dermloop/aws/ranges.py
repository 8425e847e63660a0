"""The settings that tuning searches, in SageMaker's words."""

from __future__ import annotations

from typing import Any, Literal

from training.tuning import SPACES, Range


def parameter_ranges(stage: Literal["detector", "classifier"], grid: bool) -> dict[str, list[dict[str, Any]]]:
    """What a tuning job may try for a part: the same space as a search on this machine; a grid has choices only."""
    space = SPACES[stage]
    open_ones = [] if grid else [_continuous(name, one) for name, one in space.items() if not one.choices]
    choices = [
        {"Name": name, "Values": [str(value) for value in one.choices]} for name, one in space.items() if one.choices
    ]
    return {"ContinuousParameterRanges": open_ones, "CategoricalParameterRanges": choices}


def _continuous(name: str, one: Range) -> dict[str, Any]:
    scale = "Logarithmic" if one.log else "Linear"
    return {"Name": name, "MinValue": repr(one.low), "MaxValue": repr(one.high), "ScalingType": scale}
