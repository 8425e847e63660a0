"""The border: upright, bare, named by content, and closed to everything that is no picture."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from builders_converters import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from converters import images
from converters.errors import ImageError
from converters.geometry import ImageSize
from converters.images import ImageLimits


def exif(orientation: int = 1) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010F] = "PhoneMaker"
    tags.get_ifd(0x8825)[1] = "N"
    return tags


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


def test_a_bare_picture_is_kept_byte_for_byte_and_named_by_its_content() -> None:
    content = picture()
    found = images.clean(content, "a.jpg")
    assert found.content == content
    assert found.image_id == hashlib.sha256(content).hexdigest()
    assert (found.suffix, found.size) == (".jpg", ImageSize(60, 40))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_metadata_goes_and_every_pixel_stays(kind: str) -> None:
    extra = {"pnginfo": secret_text()} if kind == "PNG" else {"comment": b"patient Smith"}
    content = picture(format=kind, exif=exif(), **extra) + b"trailing patient Smith"
    found = images.clean(content, "a")
    assert b"Smith" not in found.content and b"PhoneMaker" not in found.content
    assert np.array_equal(pixels(found.content), pixels(content))
    assert images.clean(found.content, "a") == found


def secret_text() -> PngInfo:
    info = PngInfo()
    info.add_text("Name", "patient Smith")
    info.add_itxt("Note", "patient Smith")
    return info


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_photograph_comes_out_upright_and_bare(kind: str, orientation: int) -> None:
    content = picture(format=kind, exif=exif(orientation), quality=95)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    found = images.clean(content, "a")
    clean = Image.open(io.BytesIO(found.content))
    assert not clean.getexif() and found.size == ImageSize(*upright.size)
    difference = np.abs(np.asarray(clean, dtype=int) - np.asarray(upright, dtype=int))
    assert difference.mean() < (2 if kind == "JPEG" else 1e-9)


def test_a_transparent_palette_survives_a_turn() -> None:
    small = Image.new("P", (3, 2), 1)
    small.putpalette([0, 0, 0, 255, 0, 0])
    small.putpixel((0, 0), 0)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", transparency=0, exif=exif(3))
    found = images.clean(buffer.getvalue(), "a.png")
    assert pixels(found.content)[1, 2, 3] == 0 and pixels(found.content)[0, 0, 0] == 255


def test_of_a_phones_multi_picture_file_the_first_picture_is_kept() -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    found = images.clean(buffer.getvalue(), "phone.jpg")
    assert getattr(Image.open(io.BytesIO(found.content)), "n_frames", 1) == 1
    assert pixels(found.content)[0, 0, 0] > 200


def animated() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def gif() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "GIF")
    return buffer.getvalue()


def bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", picture()[:200], picture()[:-40], picture(format="PNG")[:100], animated(), gif(), bomb()],
    ids=["empty", "text", "head only", "cut jpeg", "cut png", "animated", "gif", "bomb"],
)
def test_what_is_no_single_intact_picture_is_refused_by_name(content: bytes) -> None:
    with pytest.raises(ImageError, match="lesion-7"):
        images.clean(content, "lesion-7")


@pytest.mark.parametrize("limits", [ImageLimits(max_bytes=100), ImageLimits(max_pixels=100)])
def test_limits_hold(limits: ImageLimits) -> None:
    with pytest.raises(ImageError, match="at most 100"):
        images.clean(picture(), "a.jpg", limits)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        images.read_image(tmp_path / "gone.jpg")


def test_a_file_is_read_upright_in_colour(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(format="PNG", exif=exif(6)))
    assert (images.read_image(tmp_path / "a.png").size, images.read_image(tmp_path / "a.png").mode) == ((40, 60), "RGB")


@settings(deadline=None)
@given(st.sampled_from(["JPEG", "PNG"]), st.integers(0, 3000), st.binary(min_size=1, max_size=6), st.booleans())
def test_a_damaged_file_is_refused_or_cleaned_and_never_crashes(kind: str, at: int, junk: bytes, cut: bool) -> None:
    whole = picture(format=kind, exif=exif(6))
    at %= len(whole)
    content = whole[:at] + junk + (b"" if cut else whole[at + len(junk) :])
    try:
        found = images.clean(content, "x")
    except ImageError:
        return
    assert images.clean(found.content, "x").image_id == found.image_id
