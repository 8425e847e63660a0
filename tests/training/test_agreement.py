"""What readers differed on weighs less, and teaches the shares of those who said what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders_training import TAXONOMY, disputed

from converters.annotation import Lesion
from converters.dataset import Split
from converters.geometry import PixelBox, Polygon
from converters.taxonomy import Target
from training import agreement, datasets

COUNTS = {Split.TRAIN: 1, Split.VAL: 1}
DISPUTED = Lesion(PixelBox(0, 0, 8, 8), "mel", probabilities=(("mel", 2 / 3), ("nv", 1 / 3)))


def test_the_soft_label_of_a_disputed_lesion_is_its_readers_shares() -> None:
    diagnoses, severities = (TAXONOMY.classes(target) for target in (Target.DIAGNOSIS, Target.SEVERITY))
    shares = agreement.target_shares(DISPUTED, diagnoses.index("mel"), Target.DIAGNOSIS, TAXONOMY)
    found = {name: pytest.approx(share) for name, share in zip(diagnoses, shares, strict=True) if share}
    assert found == {"mel": 2 / 3, "nv": 1 / 3}
    shares = agreement.target_shares(DISPUTED, severities.index("high"), Target.SEVERITY, TAXONOMY)
    assert dict(zip(severities, shares.round(3), strict=True)) == {"low": 0.333, "moderate": 0, "high": 0.667}


@pytest.mark.parametrize("readings", [(), (("a melanoma?", 0.7), ("nv", 0.3)), (("mel", 0.2), ("nv", 0.2))])
def test_what_is_no_readers_word_leaves_the_label_certain(readings: tuple[tuple[str, float], ...]) -> None:
    shares = agreement.target_shares(replace(DISPUTED, probabilities=readings), 2, Target.SEVERITY, TAXONOMY)
    assert shares.tolist() == [0, 0, 1]


def test_a_lesion_weighs_what_agreed_on_it_as_far_as_is_asked_for() -> None:
    assert agreement.loss_weight(DISPUTED, 1.0) == pytest.approx(2 / 3)
    assert agreement.loss_weight(DISPUTED, 0.5) == pytest.approx(5 / 6)
    assert agreement.loss_weight(DISPUTED, 0.0) == 1.0
    assert agreement.loss_weight(replace(DISPUTED, probabilities=()), 1.0) == 1.0


def rows(folder: Path, split: Split) -> list[list[float]]:
    texts = [path.read_text() for path in (folder / "labels" / split.value).glob("*.txt")]
    return [[float(word) for word in line.split()] for text in texts for line in text.splitlines()]


def test_the_weights_of_a_detectors_training_lesions_lie_beside_their_labels(tmp_path: Path) -> None:
    version = disputed(tmp_path, COUNTS)
    folder = datasets.yolo_folder(version, tmp_path / "cache", 48, agreement_weight=1.0).data_file.parent
    [weights] = (folder / datasets.WEIGHTS).iterdir()
    assert float(weights.read_text()) == pytest.approx(2 / 3, abs=1e-5)
    assert (folder / "labels" / "train" / weights.name).is_file()
    plain = datasets.yolo_folder(version, tmp_path / "cache", 48).data_file.parent
    assert list((plain / datasets.WEIGHTS).iterdir()) == []


def test_outlines_land_where_serving_would_put_them(tmp_path: Path) -> None:
    version = disputed(tmp_path, COUNTS)
    folder = datasets.yolo_folder(version, tmp_path / "cache", 48, outlines=True).data_file.parent
    [item] = version.dataset.only(Split.VAL)
    shape = item.truth.lesions[0].shape
    assert isinstance(shape, Polygon)
    [row] = rows(folder, Split.VAL)
    found = {(round(x, 4), round(y, 4)) for x, y in np.array(row[1:]).reshape(-1, 2).tolist()}
    assert found == {(round(x / 96, 4), round(y / 96, 4)) for x, y in shape.outline}


def test_crops_carry_the_readers_shares(tmp_path: Path) -> None:
    options = {"size": 16, "padding": 0.15, "cache": tmp_path / "cache"}
    found = datasets.crops(disputed(tmp_path, COUNTS), Split.TRAIN, Target.SEVERITY, **options)
    assert found.shares.round(3).tolist() == [pytest.approx([0.333, 0, 0.667])]
