"""The transition table: what it allows, and that its diagram in the README is the generated one."""

from __future__ import annotations

from pathlib import Path

import pytest

import review_workflow
from review_workflow import states
from review_workflow.errors import TransitionError
from review_workflow.states import TRANSITIONS, Happened, ReviewState, successor

README = Path(review_workflow.__file__).with_name("README.md")


def test_nothing_leaves_a_withdrawn_review() -> None:
    for happened in Happened:
        with pytest.raises(TransitionError, match="final"):
            successor(ReviewState.WITHDRAWN, happened)


def test_every_living_state_can_be_withdrawn() -> None:
    living = set(ReviewState) - {ReviewState.WITHDRAWN}
    assert {state for state, happened in TRANSITIONS if happened is Happened.WITHDRAWN} == living


def test_only_a_decision_on_read_images_approves() -> None:
    before = {state for state, happened in TRANSITIONS if happened is Happened.APPROVED}
    assert before == {ReviewState.AGREED, ReviewState.DISPUTED, ReviewState.REOPENED}


def test_a_table_with_an_unreachable_state_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = {step: after for step, after in TRANSITIONS.items() if after is not ReviewState.EXCLUDED}
    monkeypatch.setattr(states, "TRANSITIONS", cut)
    with pytest.raises(TransitionError, match="every state reachable"):
        states.prove()


def test_a_table_with_a_second_final_state_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = {step: after for step, after in TRANSITIONS.items() if step[0] is not ReviewState.EXCLUDED}
    monkeypatch.setattr(states, "TRANSITIONS", cut)
    with pytest.raises(TransitionError, match="only withdrawn as final"):
        states.prove()


def test_the_diagram_in_the_readme_is_generated() -> None:
    shown = README.read_text().split("<!-- states -->")[1].split("<!-- /states -->")[0]
    assert shown.strip() == f"```mermaid\n{states.diagram()}\n```"
