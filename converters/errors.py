"""What can go wrong with labels and images: one root, each message names item, value, expectation and cure."""

from __future__ import annotations


class DesignedError(Exception):
    """Something that went wrong with item, value, expectation and cure: what every package's root error is made of.

    The four parts are kept apart so that a report can tabulate them; `str()` joins them into one sentence.
    """

    def __init__(self, item: str, value: object, expected: str, cure: str) -> None:
        self.item = item
        self.value = value
        self.expected = expected
        self.cure = cure
        super().__init__(f"{item}: got {value!r}; expected {expected}. {cure}")


class ConversionError(DesignedError):
    """An input that cannot be turned into the house's words without guessing."""


def refused_by_disk(error: OSError, item: str) -> ConversionError:
    """What an error of the operating system means to whoever gave the command; `item` where it names no file."""
    place = str(error.filename) if error.filename is not None else item
    expected = "files and folders that can be read and written"
    return DatasetError(place, error.strerror or str(error), expected, "Check the path, its rights and the free space.")


class GeometryError(ConversionError):
    """A shape whose numbers cannot describe a region of an image."""


class TaxonomyError(ConversionError):
    """A class list that contradicts itself, or a label that the class list does not know."""


class AnnotationError(ConversionError):
    """An annotation that cannot be read."""


class ImageError(ConversionError):
    """A file that is no readable image, or one over the declared limits."""


class DatasetError(ConversionError):
    """A dataset folder whose content contradicts its manifest."""


class AmbiguousTruthError(ConversionError):
    """Annotations of equal standing that contradict one another."""
