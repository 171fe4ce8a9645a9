"""Which sensor, which bands, which reflectance: for every preset and every way to be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from products import NEW, plain, reflectance, seen_reflectance, stored
from rasters import byte_picture, nearest, read, repeat, write_raster

from slimdiffsr.errors import BandError, ConfigError, RangeError
from slimdiffsr.geo import SceneOptions, upscale_scene
from slimdiffsr.sensors import SENSORS, SensorOptions, find_sensor, known_raster
from slimdiffsr.sensors.tables import normal_name

OLD = "S2B_MSIL2A_20190801T101559_N0213_R065_T32TQM_20190801T143500.tif"
UNTOLD = "S2B_T32TQM_20230801T101559_L2A.tif"  # as earth-search names items: no baseline
NAMES = ("B04", "B03", "B02")


# What is said, what the numbers really carry, and the offset that must be found.
SENTINEL_2 = [
    # name of the file, offset in the numbers, type, declared scale and offset, words of the remark
    (OLD, 0.0, "uint16", None, ""),
    (NEW, -0.1, "uint16", None, ""),
    (NEW, 0.0, "uint16", None, "the offset was taken as 0"),
    (NEW, 0.1, "int16", None, "the offset was taken as 0.1"),
    (UNTOLD, 0.0, "uint16", None, ""),
    (UNTOLD, -0.1, "uint16", None, "it was taken as -0.1"),
    (UNTOLD, 0.1, "int16", None, "it was taken as 0.1"),
    (UNTOLD, -0.1, "uint16", (1e-4, -0.1), ""),
    (NEW, -0.1, "uint16", (1e-4, -0.1), ""),
    (NEW, 0.0, "uint16", (1e-4, -0.1), "the offset was taken as 0"),  # applied, and declared still
    (NEW, 0.0, "uint16", (1e-4, 0.0), "the offset was taken as 0"),
    (NEW, -0.1, "uint16", (1e-4, 0.0), "the offset was taken as -0.1"),
    (OLD, 0.0, "uint16", (1e-4, -0.1), "the offset was taken as 0"),
]


@pytest.mark.parametrize(("name", "offset", "dtype", "declared", "said"), SENTINEL_2)
def test_sentinel_2_with_and_without_its_offset(
    tmp_path: Path,
    name: str,
    offset: float,
    dtype: str,
    declared: tuple[float, float] | None,
    said: str,
) -> None:
    truth = reflectance()
    profile: dict[str, Any] = {}
    if declared is not None:
        profile = {"scales": (declared[0],) * 3, "offsets": (declared[1],) * 3}
    path = plain(tmp_path / name, stored(truth, 1e-4, offset, dtype), NAMES, **profile)
    known = known_raster(path)
    np.testing.assert_allclose(seen_reflectance(known), truth, atol=1e-4)
    doubt = " ".join(known.remarks[1:])
    assert said in doubt
    assert bool(doubt) == bool(said)


@pytest.mark.parametrize("offset", [-0.1, 0.0, 0.1])
def test_the_offset_asked_for_wins_over_all_evidence(tmp_path: Path, offset: float) -> None:
    truth = reflectance() + 0.15
    path = plain(tmp_path / NEW, stored(truth, 1e-4, offset, "uint16"), NAMES)
    known = known_raster(path, SensorOptions(offset=offset))
    assert known.meanings[0].offset == offset
    seen = seen_reflectance(known)
    np.testing.assert_allclose(seen, np.minimum(truth, 0.3), atol=1e-4)


def test_a_bright_scene_leaves_the_offset_to_what_is_said(tmp_path: Path) -> None:
    bright = reflectance() * 0.3 + 0.2
    untold = known_raster(plain(tmp_path / UNTOLD, stored(bright, 1e-4, 0, "uint16"), NAMES))
    assert untold.meanings[0].offset == 0
    assert "the values fit both" in untold.remarks[1]
    told = known_raster(plain(tmp_path / NEW, stored(bright, 1e-4, -0.1, "uint16"), NAMES))
    assert (told.meanings[0].offset, len(told.remarks)) == (-0.1, 1)


OTHERS = [
    # sensor, names of the bands, scale and offset, numbers of red, green and blue, from 1
    ("landsat-4-7-c2l2", ("SR_B1", "SR_B2", "SR_B3", "SR_B4"), 2.75e-5, -0.2, (3, 2, 1)),
    ("landsat-8-9-c2l2", ("SR_B1", "SR_B2", "SR_B3", "SR_B4"), 2.75e-5, -0.2, (4, 3, 2)),
    ("landsat-8-9-c2l1", ("B1", "B2", "B3", "B4"), 2e-5, -0.1, (4, 3, 2)),
    ("hls-l30", ("B01", "B02", "B03", "B04"), 1e-4, 0.0, (4, 3, 2)),
    ("hls-s30", ("B02", "B03", "B04", "B08"), 1e-4, 0.0, (3, 2, 1)),
    ("planetscope", ("blue", "green", "red", "nir"), 1e-4, 0.0, (3, 2, 1)),
    ("planetscope", ("", "", "", ""), 1e-4, 0.0, (3, 2, 1)),
    (
        "planetscope",
        ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"),
        1e-4, 0.0, (6, 4, 2),
    ),
    ("planetscope", ("",) * 8, 1e-4, 0.0, (6, 4, 2)),
    ("modis", ("sur_refl_b01", "sur_refl_b02", "sur_refl_b03", "sur_refl_b04"), 1e-4, 0.0, (1, 4, 3)),
    ("modis", ("B1", "B2", "B3", "B4"), 1e-4, 0.0, (1, 4, 3)),
    ("sentinel-2-l2a", ("B1", "B2", "B3", "B4"), 1e-4, 0.0, (4, 3, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("sensor", "names", "scale", "offset", "rgb"), OTHERS)
def test_each_sensor_has_its_bands_and_its_factors(
    tmp_path: Path,
    sensor: str,
    names: tuple[str, ...],
    scale: float,
    offset: float,
    rgb: tuple[int, ...],
) -> None:
    truth = reflectance(len(names))
    dtype = "int16" if sensor in ("modis", "hls-l30", "hls-s30") else "uint16"
    path = plain(tmp_path / "in.tif", stored(truth, scale, offset, dtype), names)
    known = known_raster(path, SensorOptions(sensor=sensor))
    assert known.rgb == rgb
    wanted = truth[[band - 1 for band in rgb]]
    np.testing.assert_allclose(seen_reflectance(known), wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "sensor"),
    [
        ("LC09_L2SP_193029_20230801_20230803_02_T1_SR.tif", "landsat-8-9-c2l2"),
        ("LT05_L2SP_193029_19950801_20200803_02_T1_SR.tif", "landsat-4-7-c2l2"),
        ("20230801_101010_12_2415_3B_AnalyticMS_SR_8b_clip.tif", "planetscope"),
        ("20230801_101010_1_0f17_3B_AnalyticMS_SR_harmonized.tif", "planetscope"),
        ("HLS.L30.T32TQM.2023213T101010.v2.0.tif", "hls-l30"),
        ("MOD09GA.A2023213.h18v04.061.tif", "modis"),
        ("m_3712213_se_10_060_20220518.tif", "naip"),
        ("S2A_MSIL1C_20230801T101601_N0509_R065_T32TPQ_20230801T143500.tif", "sentinel-2-l1c"),
        ("scene.tif", ""),
    ],
)
def test_names_of_files_tell_the_sensor(tmp_path: Path, name: str, sensor: str) -> None:
    path = plain(tmp_path / name, stored(reflectance(4), 1e-4, 0, "uint16"))
    remarks = known_raster(path).remarks
    assert [words.split()[2] for words in remarks[:1]] == ([sensor] if sensor else [])


@pytest.mark.parametrize(
    ("names", "rgb"),
    [
        (("B02", "B03", "B04", "B08"), (3, 2, 1)),  # the same on all sensors that have such
        (("B1", "B2", "B3", "B4"), None),  # blue, red or coastal
        (("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5"), None),
        (("SR_B2", "SR_B3", "SR_B4", "SR_B6"), (3, 2, 1)),  # Landsat 4-7 has no SR_B6
        (("blue", "green", "red", "nir"), (3, 2, 1)),
        (("vv", "vh", "angle"), None),
    ],
)
def test_names_without_a_sensor_count_only_where_they_are_unambiguous(
    tmp_path: Path, names: tuple[str, ...], rgb: tuple[int, ...] | None
) -> None:
    values = stored(reflectance(len(names)), 1e-4, 0, "uint16")
    known = known_raster(plain(tmp_path / "in.tif", values, names))
    assert known.rgb == rgb
    ambiguous = any("in different places" in words for words in known.remarks)
    assert ambiguous == (rgb is None and names[0] != "vv")


def test_special_values_and_undeclared_zeros_stay_as_they_are(tmp_path: Path) -> None:
    values = stored(reflectance(), 1e-4, -0.1, "uint16")
    values[:, :5], values[:, 20:22, 30:33] = 0, 65535
    path = plain(tmp_path / NEW, values, NAMES)
    upscale_scene(known_raster(path), tmp_path / "out.tif", nearest(), SceneOptions(colour="none"))
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), repeat(values, 4))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_the_output_is_in_the_inputs_own_numbers(tmp_path: Path, dtype: str) -> None:
    truth = reflectance()
    values = stored(truth, 1e-4, 0.0, dtype) if dtype != "float32" else truth.astype(np.float32)
    path = plain(tmp_path / OLD, values, NAMES)
    upscale_scene(known_raster(path), tmp_path / "out.tif", nearest(), SceneOptions(colour="none"))
    result = read(tmp_path / "out.tif")
    assert result.dtype == dtype
    if dtype == "float32":
        np.testing.assert_allclose(result, repeat(values, 4), atol=1e-7)
    else:
        np.testing.assert_array_equal(result, repeat(values, 4))


def test_eight_bits_are_a_picture_whatever_the_sensor(tmp_path: Path) -> None:
    known = known_raster(write_raster(tmp_path / NEW, byte_picture(3, 32, 32), descriptions=NAMES))
    assert (known.meanings, known.rgb) == ((), (1, 2, 3))
    assert "8 bits, shown as they are" in known.remarks[0]


def test_floating_point_reflectance_needs_no_factor(tmp_path: Path) -> None:
    truth = reflectance()
    known = known_raster(plain(tmp_path / NEW, truth.astype(np.float32), NAMES))
    np.testing.assert_allclose(seen_reflectance(known), truth, atol=1e-6)
    counts = known_raster(plain(tmp_path / OLD, (truth * 1e4).astype(np.float32), NAMES))
    np.testing.assert_allclose(seen_reflectance(counts), truth, atol=1e-4)


@pytest.mark.parametrize("nodata", [0.0, "none", 1234.0])
def test_nodata_can_be_overridden(tmp_path: Path, nodata: Any) -> None:
    values = stored(reflectance(), 1e-4, 0, "uint16")
    values[:, :8, :8] = 1234
    values[:, 8:16, :8] = 0
    path = plain(tmp_path / "in.tif", values, ("red", "green", "blue"), nodata=0)
    options = SceneOptions(nodata=nodata, colour="none", overwrite=True)
    upscale_scene(known_raster(path), tmp_path / "out.tif", nearest(), options)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.nodata == (None if nodata == "none" else nodata)
    np.testing.assert_array_equal(
        read(tmp_path / "out.tif")[:, :64, :32], repeat(values, 4)[:, :64, :32]
    )


def test_a_users_own_sensor_is_a_small_file(tmp_path: Path) -> None:
    table = tmp_path / "mine.toml"
    table.write_text(
        "scale = 0.001\noffset = -0.05\nwhite = 0.4\nnodata = 7\n"
        '[[bands]]\nrole = "red"\nnames = ["c"]\npixel_m = 2\n'
        '[[bands]]\nrole = "green"\nnames = ["b"]\npixel_m = 2\n'
        '[[bands]]\nrole = "blue"\nnames = ["a"]\npixel_m = 2\n'
    )
    truth = reflectance()
    path = plain(tmp_path / "in.tif", stored(truth, 1e-5, -0.05, "uint16"), ("a", "b", "c"))
    known = known_raster(path, SensorOptions(sensor=str(table), scale_factor=1e-5))
    assert (known.rgb, known.nodata, known.meanings[0].white) == ((3, 2, 1), 7, 0.4)
    np.testing.assert_allclose(seen_reflectance(known), truth[::-1], atol=1e-5)
    table.write_text(table.read_text() + "whitw = 2\n")
    with pytest.raises(ConfigError, match="whitw"):
        find_sensor(str(table))


def test_wrong_words_are_refused_in_a_sentence(tmp_path: Path) -> None:
    values = stored(reflectance(), 1e-4, 0, "uint16")
    path = plain(tmp_path / NEW, values, NAMES)
    with pytest.raises(RangeError, match=r"for stored numbers of -1000 give -0\.1"):
        known_raster(path, SensorOptions(offset=-1000))
    with pytest.raises(ConfigError, match="no sensor 'sentinel'"):
        known_raster(path, SensorOptions(sensor="sentinel"))
    unknown = plain(tmp_path / "in.tif", values)
    with pytest.raises(ConfigError, match="give --sensor"):
        known_raster(unknown, SensorOptions(offset=-0.1))
    with pytest.raises(BandError, match="none is one of landsat-8-9-c2l2's"):
        known_raster(unknown, SensorOptions(sensor="landsat-8-9-c2l2"))


def test_each_preset_has_a_name_of_its_own_for_each_band() -> None:
    for sensor in SENSORS.values():
        names = [
            normal_name(name) for band in sensor.bands for name in (band.role, *set(band.names))
        ]
        own = [name for band in sensor.bands for name in {band.role, *band.names}]
        assert len(own) == len(set(own)), sensor.name
        assert all(sensor.role_of(name) for name in names)
