"""The class registry: append-only, free of contradictions, the owner of every index."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders_converters import TAXONOMY

from converters import taxonomy
from converters.errors import TaxonomyError
from converters.taxonomy import Diagnosis, Severity, Target, Taxonomy

NEW = Diagnosis(7, "scc", "Squamous cell carcinoma", Severity.MODERATE, True, "8070/3", aliases=("squamous",))


def test_the_seven_diagnoses_keep_their_ids_for_ever() -> None:
    assert TAXONOMY.codes == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert [d.code for d in TAXONOMY.diagnoses if d.malignant] == ["akiec", "bcc", "mel"]
    assert [d.code for d in TAXONOMY.diagnoses if d.severity is Severity.HIGH] == ["mel"]


@pytest.mark.parametrize(("label", "code"), [("MEL", "mel"), ("  melanoma ", "mel"), ("Naevus", "nv"), ("SEK", "bkl")])
def test_codes_names_and_aliases_resolve_whatever_their_case(label: str, code: str) -> None:
    assert TAXONOMY.resolve(label).code == code


def test_an_unknown_label_names_the_item_and_the_cure() -> None:
    with pytest.raises(TaxonomyError, match=r"task 3: got 'wart'; expected one of akiec.*Append the class"):
        TAXONOMY.resolve("wart", "task 3")


def test_every_target_has_an_index_for_every_diagnosis() -> None:
    for target in Target:
        names = TAXONOMY.classes(target)
        assert all(0 <= TAXONOMY.class_index(d, target) < len(names) for d in TAXONOMY.diagnoses)
    assert TAXONOMY.classes(Target.SEVERITY) == ("low", "moderate", "high")


def test_an_appended_class_moves_nobody_and_changes_the_digest() -> None:
    grown = TAXONOMY.extended([NEW])
    TAXONOMY.require_prefix_of(grown)
    assert grown.digest != TAXONOMY.digest
    assert taxonomy.diff(TAXONOMY, grown) == ("scc (id 7): added",)
    assert taxonomy.diff(grown, TAXONOMY) == ("scc (id 7): removed",)


def test_a_changed_class_is_named_and_refused() -> None:
    first, *others = TAXONOMY.diagnoses
    changed = Taxonomy((replace(first, malignant=False), *others))
    with pytest.raises(TaxonomyError, match=r"akiec \(id 0\): malignant True → False"):
        TAXONOMY.require_prefix_of(changed)


@pytest.mark.parametrize(
    "rows",
    [(), (replace(NEW, id=1),), (replace(NEW, id=0), replace(NEW, id=0)), (replace(NEW, id=0), replace(NEW, id=1))],
)
def test_gaps_doubles_and_shared_labels_are_refused(rows: tuple[Diagnosis, ...]) -> None:
    with pytest.raises(TaxonomyError):
        Taxonomy(rows)


def test_plain_rows_read_back_equal() -> None:
    assert taxonomy.decode(taxonomy.encode(TAXONOMY)) == TAXONOMY


@pytest.mark.parametrize("text", ["", "[[diagnosis]]\nid = 0", "[[diagnosis", "diagnosis = 3", 'diagnosis = ["a"]'])
def test_a_malformed_file_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    path = tmp_path / "classes.toml"
    path.write_text(text)
    with pytest.raises(TaxonomyError):
        taxonomy.read(path)
