"""Objects made fast are the same objects: equal, frozen, of the class itself."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from converters.annotation import Annotation, Finding, ImageRecord, Lesion
from converters.geometry import ImageSize, PixelBox
from converters.unchecked import made_from_checked

MADE = {
    PixelBox: ((1.0, 2.0, 3.0, 4.0), {}),
    Lesion: ((PixelBox(0, 0, 1, 1), "mel"), {"region_id": "r1"}),
    ImageRecord: (("id", "a.jpg", ImageSize(4, 3)), {"original_name": "a.jpg"}),
    Annotation: (("id", Finding.LESIONS), {"author": "dora"}),
}


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: kind.__name__)
def test_an_object_made_fast_is_the_one_that_its_class_makes(kind: type) -> None:
    values, named = MADE[kind]
    made = made_from_checked(kind)(*values, **named)
    usual = kind(*values, **named)
    assert (type(made), made, repr(made), hash(made)) == (kind, usual, repr(usual), hash(usual))


def test_an_object_made_fast_is_frozen_and_can_be_copied_with_changes() -> None:
    box = made_from_checked(PixelBox)(1.0, 2.0, 3.0, 4.0)
    with pytest.raises(FrozenInstanceError):
        box.x_min = 7.0  # type: ignore[misc]
    assert replace(box, x_min=0.0) == PixelBox(0.0, 2.0, 3.0, 4.0)
