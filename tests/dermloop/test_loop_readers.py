"""Played readers make the scripted mistakes, once, and say why they send work back."""

from __future__ import annotations

from dataclasses import replace

from builders_labels import SIZE, annotation, box, lesion

from converters import taxonomy
from converters.annotation import Finding, Origin
from converters.label_studio.controls import Verdict
from dermloop.loop.readers import (
    Script,
    Shares,
    dermatologist,
    draw_script,
    quality_reader,
    technician,
    with_origin,
)

TAXONOMY = taxonomy.read()
TRUTH = annotation("a")
CALM = Script()


def test_every_event_falls_on_an_image_of_its_own() -> None:
    script = draw_script([annotation(f"image-{n}") for n in range(40)], Shares(), seed=1)
    events = [getattr(script, name) for name in Script.__dataclass_fields__]
    assert all(events)
    assert len(frozenset().union(*events)) == sum(map(len, events))


def test_the_same_seed_plays_the_same_script() -> None:
    truths = [annotation(f"image-{n}") for n in range(40)]
    assert draw_script(truths, Shares(), 1) == draw_script(reversed(truths), Shares(), 1)
    assert draw_script(truths, Shares(), 1) != draw_script(truths, Shares(), 2)


def test_a_missed_lesion_is_sent_back_with_a_reason_and_marked_the_second_time() -> None:
    script = replace(CALM, missed=frozenset({"a"}))
    first = technician(TRUTH, SIZE, script, TAXONOMY, returned=False)
    verdict = dermatologist(TRUTH, first.lesions, script, TAXONOMY, dissents=False)
    second = technician(TRUTH, SIZE, script, TAXONOMY, returned=True)
    assert (first.lesions, first.finding) == ((), Finding.LESION_FREE)
    assert (verdict.verdict, verdict.reason) == (Verdict.SEND_BACK, "1 lesion is not marked.")
    assert second.lesions == TRUTH.lesions


def test_a_shifted_box_is_corrected() -> None:
    script = replace(CALM, shifted=frozenset({"a"}))
    first = technician(TRUTH, SIZE, script, TAXONOMY, returned=False)
    verdict = dermatologist(TRUTH, first.lesions, script, TAXONOMY, dissents=False)
    assert first.lesions[0].box.iou(TRUTH.lesions[0].box) < 0.75
    assert (verdict.verdict, verdict.lesions) == (Verdict.CORRECT, TRUTH.lesions)


def test_right_boxes_are_accepted() -> None:
    verdict = dermatologist(TRUTH, TRUTH.lesions, CALM, TAXONOMY, dissents=False)
    assert verdict.verdict is Verdict.ACCEPT


def test_a_dissenting_reader_changes_the_diagnosis_and_qa_restores_it() -> None:
    script = replace(CALM, disagreed=frozenset({"a"}))
    dissent = dermatologist(TRUTH, TRUTH.lesions, script, TAXONOMY, dissents=True)
    decided = quality_reader(TRUTH, [TRUTH.lesions, dissent.lesions], script, returned=False)
    assert dissent.lesions[0].diagnosis == "mel"
    assert (decided.verdict, decided.lesions) == (Verdict.CORRECT, TRUTH.lesions)


def test_qa_sends_back_once_then_approves() -> None:
    script = replace(CALM, returned_by_qa=frozenset({"a"}))
    verdicts = [quality_reader(TRUTH, [TRUTH.lesions], script, returned=r).verdict for r in (False, True)]
    assert verdicts == [Verdict.SEND_BACK, Verdict.APPROVE]


def test_qa_excludes_with_a_reason() -> None:
    decided = quality_reader(TRUTH, [TRUTH.lesions], replace(CALM, excluded=frozenset({"a"})), returned=False)
    assert (decided.verdict, bool(decided.reason)) == (Verdict.EXCLUDE, True)


def test_the_origin_of_a_box_says_what_became_of_the_suggestion() -> None:
    marked = with_origin((lesion(), lesion(at=box(12, 12)), lesion(at=box(60, 50))), (lesion(), lesion(at=box(30, 30))))
    assert [one.origin for one in marked] == [Origin.PREDICTION, Origin.PREDICTION_CHANGED, Origin.MANUAL]
