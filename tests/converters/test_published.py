"""Published sets, in the columns that their publishers give them; the rows are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders_converters import TAXONOMY, picture
from PIL import Image

from converters.annotation import Confirmation, TruthLevel
from converters.convert import convert, read_all
from converters.dataset import DatasetItem
from converters.formats.contract import ReadSettings, WriteSettings
from converters.formats.table import find, sniffed
from converters.geometry import PixelBox
from converters.report import Entry, Kind
from converters.request import Request

PAD_COLUMNS = (
    "patient_id,lesion_id,smoke,drink,background_father,background_mother,age,pesticide,gender,skin_cancer_history,"
    "cancer_history,has_piped_water,has_sewage_system,fitspatrick,region,diameter_1,diameter_2,diagnostic,itch,grew,"
    "hurt,changed,bleed,elevation,img_id,biopsed\n"
)
PAD_ROW = "PAT_1,2,,,,,55,,FEMALE,,,,,3.0,NECK,6.0,5.0,{},True,False,False,False,False,True,a.png,{}"
ISIC_COLUMNS = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\n"
FITZPATRICK_COLUMNS = (
    "md5hash,fitzpatrick_scale,fitzpatrick_centaur,label,nine_partition_label,three_partition_label,qc,url,"
    "url_alphanum\n"
)
PH2_TABLE = (
    "||   Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry | Pigment Network | Dots/Globules | Streaks"
    " | Regression Areas | Blue-Whitish Veil ||           Colors ||\n"
    "||      a ||                        ||                  2 ||         0 |               T |             A |       A"
    " |                A |                 A ||                4 ||\n"
    "\nLegend:\n0 - Common Nevus\n"
)
PUBLISHED = {
    "ham10000": (
        "HAM10000_metadata.csv",
        "lesion_id,image_id,dx,dx_type,age,sex,localization\nH1,a,mel,histo,60,male,back",
    ),
    "isic": ("ISIC_2019_Training_GroundTruth.csv", ISIC_COLUMNS + "a,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0"),
    "pad-ufes-20": ("PAD-UFES-20_metadata.csv", PAD_COLUMNS + PAD_ROW.format("MEL", "True")),
    "ph2": ("PH2_dataset.txt", PH2_TABLE),
    "fitzpatrick17k": (
        "fitzpatrick17k.csv",
        FITZPATRICK_COLUMNS + "a,-1,2,malignant melanoma,malignant melanoma,malignant,,http://x/a.jpg,xa.jpg",
    ),
    "ddi": ("ddi_metadata.csv", ",DDI_ID,DDI_file,skin_tone,malignant,disease\n0,1,a.png,56,True,melanoma-in-situ"),
}
LEFT = {
    "pad-ufes-20": "diameter_1, diameter_2, itch, grew, hurt, changed, bleed, elevation",
    "ph2": "Asymmetry, Pigment Network, Dots/Globules, Streaks, Regression Areas, Blue-Whitish Veil, Colors",
    "fitzpatrick17k": "fitzpatrick_centaur, nine_partition_label, three_partition_label, url, url_alphanum",
    "ddi": "DDI_ID, malignant",
}


def a_set(folder: Path, table: str, text: str) -> Path:
    (folder / table).write_text(text)
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images" / "a.png").write_bytes(picture(format="PNG"))
    return folder


def reading(folder: Path) -> tuple[tuple[DatasetItem, ...], tuple[Entry, ...]]:
    return read_all(folder, sniffed(folder), ReadSettings(TAXONOMY))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sets_are_read_as_their_publishers_give_them(tmp_path: Path, name: str) -> None:
    a_set(tmp_path, *PUBLISHED[name])
    mask = np.zeros((40, 60), dtype=bool)
    mask[5:9, 7:20] = True
    for ending in ("_segmentation.png", "_lesion.bmp"):
        Image.fromarray(mask).save(tmp_path / f"a{ending}")
    (item,), entries = reading(tmp_path)
    left = ((Kind.EXPECTED, name, LEFT[name]),) if name in LEFT else ()
    assert tuple((entry.kind, entry.item, entry.value) for entry in entries) == left
    assert (sniffed(tmp_path).name, item.record.source) == (name, name)
    assert item.truth.lesions[0].diagnosis == "mel"
    masked = name in ("ham10000", "isic", "ph2")
    assert item.truth.lesions[0].box == (PixelBox(7, 5, 20, 9) if masked else PixelBox(0, 0, 60, 40))
    assert item.record.skin_type == (3 if name == "pad-ufes-20" else None)


def test_two_isic_tables_are_read_side_by_side(tmp_path: Path) -> None:
    a_set(tmp_path, *PUBLISHED["isic"])
    metadata = "image,age_approx,anatom_site_general,lesion_id,gender\na,55,anterior torso,BCN_1,female\n"
    (tmp_path / "ISIC_2019_Training_Metadata.csv").write_text(metadata)
    (item,), entries = reading(tmp_path)
    record = item.record
    assert (entries, record.age, record.site, record.lesion_id, record.sex) == (
        (),
        55,
        "anterior torso",
        "BCN_1",
        "female",
    )


@pytest.mark.parametrize(
    ("table", "text", "field", "value"),
    [
        ("ISIC_2019_Training_GroundTruth.csv", ISIC_COLUMNS + "a,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,0.0", "dx", "scc"),
        ("ISIC_2019_Training_GroundTruth.csv", ISIC_COLUMNS + "a,1.0,1.0,0,0,0,0,0,0,0", "dx", "mel and nv"),
        ("PAD-UFES-20_metadata.csv", PAD_COLUMNS + PAD_ROW.format("SCC", "True"), "dx", "SCC"),
        (
            "fitzpatrick17k.csv",
            FITZPATRICK_COLUMNS + "a,2,2,melanoma,,,3 Wrongly labelled,,",
            "label",
            "3 Wrongly labelled",
        ),
    ],
)
def test_a_row_without_a_class_of_ours_is_skipped_and_says_which(
    tmp_path: Path, table: str, text: str, field: str, value: str
) -> None:
    items, entries = reading(a_set(tmp_path, table, text))
    assert items == () and [(e.field, e.value) for e in entries if e.kind is Kind.SKIPPED] == [(field, value)]


@pytest.mark.parametrize(
    ("biopsed", "confirmation", "level"),
    [
        ("True", Confirmation.HISTOPATHOLOGY, TruthLevel.HISTOPATHOLOGY),
        ("False", Confirmation.CONSENSUS, TruthLevel.CONSENSUS),
    ],
)
def test_a_pad_lesion_is_one_of_its_patient(tmp_path: Path, biopsed: str, confirmation: Any, level: Any) -> None:
    (item,), _ = reading(a_set(tmp_path, "PAD-UFES-20_metadata.csv", PAD_COLUMNS + PAD_ROW.format("NEV", biopsed)))
    assert (item.record.patient_id, item.record.lesion_id) == ("PAT_1", "PAT_1_2")
    assert (item.record.confirmation, item.truth.level) == (confirmation, level)


def test_a_variety_of_a_class_is_read_as_the_class_and_keeps_its_name(tmp_path: Path) -> None:
    row = "0,1,a.png,12,True,basal-cell-carcinoma-superficial"
    (item,), _ = reading(a_set(tmp_path, "ddi_metadata.csv", ",DDI_ID,DDI_file,skin_tone,malignant,disease\n" + row))
    assert (item.truth.lesions[0].diagnosis, item.record.confirmation) == ("bcc", Confirmation.HISTOPATHOLOGY)
    assert item.record.extra == (("label", "basal cell carcinoma superficial"), ("note", "skin types 12"))


def test_a_cell_that_cannot_be_read_is_listed_and_left_unknown(tmp_path: Path) -> None:
    text = "lesion_id,image_id,dx,dx_type,age,sex,localization\nH1,a,mel,histo,old,male,back"
    (item,), (entry,) = reading(a_set(tmp_path, "HAM10000_metadata.csv", text))
    assert item.record.age is None and (entry.field, entry.value) == ("age", "old")


def test_ph2_as_published_is_bmp_in_folders_of_folders_and_leaves_as_png(tmp_path: Path) -> None:
    (tmp_path / "PH2_dataset.txt").write_text(PH2_TABLE)
    folders = [tmp_path / "PH2 Dataset images" / "a" / name for name in ("a_Dermoscopic_Image", "a_lesion")]
    mask = np.zeros((40, 60), dtype=bool)
    mask[5:9, 7:20] = True
    for folder, file, pixels in zip(
        folders, ("a.bmp", "a_lesion.bmp"), (Image.new("RGB", (60, 40), 9), mask), strict=True
    ):
        folder.mkdir(parents=True)
        (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(folder / file)
    reader, writer = find("ph2"), find("coco")
    request = Request(tmp_path, tmp_path / "out", reader, writer, ReadSettings(TAXONOMY), WriteSettings(TAXONOMY))
    assert convert(request).failures == ()
    (written,) = (tmp_path / "out").rglob("*.png")
    assert written.name == "a.png" and written.read_bytes().startswith(b"\x89PNG")


def test_a_damaged_bmp_is_refused_with_its_name(tmp_path: Path) -> None:
    a_set(tmp_path, "PH2_dataset.txt", PH2_TABLE)
    (tmp_path / "a_lesion.bmp").write_bytes(b"BM" + bytes(40))
    items, entries = reading(tmp_path)
    assert items == () and "a_lesion.bmp" in next(e for e in entries if e.kind is Kind.REFUSED).item
