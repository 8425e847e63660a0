"""Bulk verdicts for Label Studio's Data Manager: a module that is dropped into Label Studio, and the way to drop it."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from review_workflow.errors import LabelStudioError

MODULE = "dermloop_review.py"


def actions_folder(label_studio_environment: Path) -> Path:
    """Where a Label Studio of a virtual environment looks for actions; raises LabelStudioError where there is none."""
    found = sorted(label_studio_environment.glob("lib/python*/site-packages/label_studio/data_manager/actions"))
    if not found:
        raise LabelStudioError(
            "Label Studio", str(label_studio_environment), "an environment with label-studio in it", "Install it first."
        )
    return found[0]


def install_actions(label_studio_environment: Path) -> bool:
    """Whether the module had to be written; Label Studio loads it at its next start."""
    target = actions_folder(label_studio_environment) / MODULE
    wanted = resources.files(__name__).joinpath(MODULE).read_text(encoding="utf-8")
    if target.is_file() and target.read_text(encoding="utf-8") == wanted:
        return False
    target.write_text(wanted, encoding="utf-8")
    return True
