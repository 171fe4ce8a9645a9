"""What is empty in the input is empty in the output and nothing else, whoever says so and how."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasters import UTM, byte_picture, nearest, picture, read, write_raster

from slimdiffsr.errors import BandError, RangeError
from slimdiffsr.geo import NetworkSpec, SceneOptions, plan_scene, upscale_scene
from slimdiffsr.geo.emptiness import common_nodata, equals_nodata, stored_nodata
from slimdiffsr.geo.environment import gdal
from slimdiffsr.geo.raster import open_source
from slimdiffsr.geo.values import looks_like_alpha

SPEC = NetworkSpec(scale=4, tile_hr_px=64, overlap_hr_px=16, model_id="x")
TYPES = {
    "uint8": "Byte",
    "int16": "Int16",
    "uint16": "UInt16",
    "float32": "Float32",
    "float64": "Float64",
}
LARGEST = float(np.finfo("float32").max)


def mosaic(
    folder: Path,
    values: NDArray[Any],
    nodata: tuple[str | None, ...],
    masks: str = "",
    more: str = "",
) -> Path:
    """A VRT whose bands declare nodata in these words; masks: MaskBand elements for each."""
    page = write_raster(folder / "page.tif", values)
    kind, (height, width) = TYPES[values.dtype.name], values.shape[1:]
    bands = ""
    for number, said in enumerate(nodata, 1):
        told = f"<NoDataValue>{said}</NoDataValue>" if said is not None else ""
        bands += (
            f'<VRTRasterBand dataType="{kind}" band="{number}">{told}<SimpleSource>'
            f'<SourceFilename relativeToVRT="1">{page.name}</SourceFilename>'
            f"<SourceBand>{number}</SourceBand></SimpleSource>{masks.format(number)}</VRTRasterBand>"
        )
    place = ", ".join(map(str, UTM.to_gdal()))
    path = folder / "in.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>EPSG:26910</SRS>'
        f"<GeoTransform>{place}</GeoTransform>{more}{bands}</VRTDataset>"
    )
    return path


def valid_in(path: Path) -> NDArray[np.bool_]:
    """(b, h, w) as GDAL sees it."""
    with rasterio.open(path) as dataset:
        told: NDArray[np.bool_] = (dataset.read_masks() > 0) & np.isfinite(dataset.read())
    return told


def check(path: Path, empty: NDArray[np.bool_], **options: Any) -> NDArray[Any]:
    """Upscale, compare what is empty with (b, h, w) of the input, and return the result."""
    out = path.with_name("out.tif")
    upscale_scene(path, out, nearest(), SceneOptions(**options))
    np.testing.assert_array_equal(valid_in(out), ~np.kron(empty, np.ones((1, 4, 4), np.bool_)))
    return read(out)


def left_third(values: NDArray[Any]) -> NDArray[np.bool_]:
    where = np.zeros(values.shape, np.bool_)
    where[:, :, : values.shape[2] // 3] = True
    return where


@pytest.mark.parametrize(
    ("dtype", "stored", "said"),
    [
        ("float32", -LARGEST, "-3.40282346638529e+38"),
        ("float32", -LARGEST, "-3.4028235e+38"),
        ("float32", -LARGEST, "-3.40282347e+38"),
        ("float32", -LARGEST, "-1.79769313486232e+308"),
        ("float32", np.float32(-9999.9), "-9999.9"),
        ("float32", np.nextafter(np.float32(-9999.9), np.float32(0)), "-9999.9"),
        ("float32", np.float32(0.1), "0.1"),
        ("float32", np.float32(-3.40282306074e38), "-3.40282306074e+038"),
        ("float32", np.inf, "inf"),
        ("float32", -np.inf, "-inf"),
        ("float32", np.nan, "nan"),
        ("float64", np.finfo("float64").min, "-1.79769313486232e+308"),
        ("float64", -LARGEST, "-3.4028235e+38"),
        ("float64", float(np.float32(-9999.9)), "-9999.9"),
        ("uint8", 0, "0.4"),
        ("uint16", 65535, "65535.0"),
        ("int16", -32768, "-32768"),
    ],
)
def test_nodata_by_any_spelling(tmp_path: Path, dtype: str, stored: Any, said: str) -> None:
    values = (10 + 80 * picture(1, 24, 24)).astype(dtype)
    empty = left_third(values)
    values[empty] = stored
    result = check(mosaic(tmp_path, values, (said,)), empty)
    assert np.isfinite(result[:, :, 40:]).all()


def test_nodata_that_the_type_cannot_hold_is_said(tmp_path: Path) -> None:
    path = mosaic(tmp_path, byte_picture(1, 24, 24), ("-9999",))
    plan = plan_scene(path, SPEC)
    assert plan.nodata is None
    assert "The declared nodata value -9999 is no uint8: ignored." in plan.assumptions


@pytest.mark.parametrize(
    ("declared", "dtype", "expected"),
    [
        (None, "uint8", None), (0.0, "uint8", 0.0), (255.0, "uint8", 255.0), (256.0, "uint8", None),
        (-0.5, "uint8", None), (0.4, "uint8", 0.0), (float("nan"), "int16", None),
        (float("inf"), "int32", None), (-LARGEST * (1 + 1e-8), "float32", -LARGEST),
        (1e300, "float32", None), (1e300, "float64", 1e300), (0.1, "float32", float(np.float32(0.1))),
    ],
)  # fmt: skip
def test_nodata_as_it_is_stored(declared: Any, dtype: str, expected: Any) -> None:
    assert stored_nodata(declared, np.dtype(dtype)) == expected


def test_near_values_are_data() -> None:
    values = np.array([-9999, -9998.99, -9999.1, 0, 1e-30], np.float32)
    assert equals_nodata(values, -9999).tolist() == [True, False, False, False, False]
    neighbours = np.nextafter(np.float32(-9999), np.array([0, -np.inf], np.float32))
    assert equals_nodata(neighbours, -9999).all()
    assert equals_nodata(values, 0).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_each_band_has_its_own_nodata(tmp_path: Path, dtype: str) -> None:
    values = byte_picture(3, 24, 24).astype(dtype)
    said: tuple[str | None, ...] = ("0", "7", None)
    values[1, :, :8] = 7
    values[0, :, 8:10] = 7  # valid
    values[0, 20:] = values[2, 20:] = 0  # valid in the third
    empty = np.zeros(values.shape, np.bool_)
    empty[0, 20:] = True
    empty[1, :, :8] = True
    result = check(mosaic(tmp_path, values, said), empty, colour="none")
    valid = ~np.kron(empty, np.ones((1, 4, 4), np.bool_))
    wanted = np.kron(values, np.ones((1, 4, 4), values.dtype))
    assert np.abs(result[valid].astype(float) - wanted[valid]).max() <= 1


def test_one_band_with_nodata_costs_the_others_no_zeros(tmp_path: Path) -> None:
    values = byte_picture(3, 24, 24)
    values[:, :, :8] = 0
    empty = np.zeros(values.shape, np.bool_)
    empty[1, :, :8] = True
    result = check(mosaic(tmp_path, values, (None, "0", None)), empty, colour="none")
    assert result[0, :, :32].max() <= 1
    plan = plan_scene(tmp_path / "in.vrt", SPEC)
    assert any("declare different nodata values" in words for words in plan.assumptions)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_masks_of_single_bands(tmp_path: Path, dtype: str) -> None:
    values = byte_picture(3, 24, 24).astype(dtype)
    masks = np.full((3, 24, 24), 255, np.uint8)
    for k in range(3):
        masks[k, :, 4 * k : 4 * k + 6] = 0
    write_raster(tmp_path / "masks.tif", masks)
    element = (
        '<MaskBand><VRTRasterBand dataType="Byte"><SimpleSource><SourceFilename relativeToVRT="1">'
        "masks.tif</SourceFilename><SourceBand>{}</SourceBand></SimpleSource></VRTRasterBand></MaskBand>"
    )
    path = mosaic(tmp_path, values, (None,) * 3, element)
    check(path, masks == 0, colour="none")
    plan = plan_scene(path, SPEC)
    assert any("masks of their own" in words for words in plan.assumptions)


def test_nodata_of_the_whole_pixel(tmp_path: Path) -> None:
    values = byte_picture(3, 24, 24)
    values[0, :, 12:] = 0  # valid: the other bands are not 0
    values[:, :, :8] = 0
    tag = '<Metadata><MDI key="NODATA_VALUES">0 0 0</MDI></Metadata>'
    path = mosaic(tmp_path, values, (None,) * 3, more=tag)
    result = check(path, left_third(values), colour="none")
    assert (result[0, :, 48:] == 0).all()
    with gdal(), open_source(path) as source:
        reading = source.read(source.region_lr, (1, 2, 3))
    np.testing.assert_array_equal(reading.valid, ~left_third(values))
    with rasterio.open(tmp_path / "out.tif") as out:
        assert "NODATA_VALUES" not in out.tags()


def test_the_common_value_is_the_rarest() -> None:
    samples = np.array([0, 0, 255, 7], np.uint8)
    assert common_nodata([3.0, 3.0], False, np.dtype("uint8"), samples) == 3
    assert common_nodata([None, None], False, np.dtype("uint8"), samples) is None
    assert common_nodata([0.0, None], False, np.dtype("uint8"), samples) == 255
    assert common_nodata([5.0, 0.0], False, np.dtype("uint8"), samples) == 5
    assert common_nodata([None, None], True, np.dtype("int16"), samples.astype("int16")) == -32768
    of_floats = common_nodata([0.0, None], False, np.dtype("float32"), samples.astype("f4"))
    assert of_floats is not None
    assert np.isnan(of_floats)


def feathered(share: float) -> NDArray[np.uint8]:
    """Four bands: a picture, and opacity that rises over this share of the columns."""
    alpha = np.clip(np.linspace(0, 1 / share, 60), 0, 1)
    return np.concatenate([byte_picture(3, 40, 60), np.full((1, 40, 1), 255) * alpha]).astype("u1")


@pytest.mark.parametrize(("share", "rule"), [(0.3, "auto"), (0.3, "band"), (1.0, "band")])
def test_soft_transparency_is_kept(tmp_path: Path, share: float, rule: Any) -> None:
    values = feathered(share)
    path = write_raster(tmp_path / "in.tif", values, photometric="RGB", alpha="YES")
    upscale_scene(path, tmp_path / "o.tif", nearest(), SceneOptions(alpha=rule))
    with rasterio.open(tmp_path / "o.tif") as out:
        assert out.colorinterp[3].name == "alpha"
        np.testing.assert_array_equal(out.read(4), np.kron(values[3], np.ones((4, 4), np.uint8)))


def test_what_the_alpha_band_is_can_be_said(tmp_path: Path) -> None:
    values = feathered(1.0)
    path = write_raster(tmp_path / "in.tif", values, photometric="RGB", alpha="YES")
    assert "alpha option" in plan_scene(path, SPEC).assumptions[0]
    data = plan_scene(path, SPEC, SceneOptions(alpha="none", all_bands=True))
    assert data.output_bands[3] == "band 4 (undefined)"
    untagged = write_raster(tmp_path / "u.tif", values, photometric="MINISBLACK", alpha="NO")
    plan = plan_scene(untagged, SPEC, SceneOptions(alpha="band"))
    assert plan.output_bands[3] == "band 4 (alpha)"
    three = write_raster(tmp_path / "t.tif", values[:3])
    with pytest.raises(BandError, match=r"no band of .* is tagged alpha"):
        plan_scene(three, SPEC, SceneOptions(alpha="band"))
    with pytest.raises(BandError, match="alpha must be auto, band or none"):
        SceneOptions(alpha="soft")  # type: ignore[arg-type]


def test_half_clear_or_opaque_is_no_infrared() -> None:
    infrared = np.random.default_rng(0).integers(9, 256, 10_000).astype(np.uint8)
    infrared[:2000] = 255  # saturated
    assert not looks_like_alpha(infrared)
    assert looks_like_alpha(feathered(0.4)[3])


@pytest.mark.parametrize(
    ("dtype", "factor"),
    [("float32", 3e38), ("float64", 1e308), ("float64", 1e-310), ("float32", 1e-40)],
)
def test_values_at_the_edge_of_a_type_are_refused(
    tmp_path: Path, dtype: str, factor: float
) -> None:
    values = (picture(1, 24, 24).astype("float64") * factor).astype(dtype)
    path = write_raster(tmp_path / "in.tif", values)
    with pytest.raises(RangeError, match="at the edge of what numbers like"):
        plan_scene(path, SPEC)


def test_a_few_values_at_the_edge_saturate(tmp_path: Path) -> None:
    values = picture(1, 40, 40).astype(np.float32)
    values[0, 5, 5] = LARGEST
    path = write_raster(tmp_path / "in.tif", values)
    upscale_scene(path, tmp_path / "o.tif", nearest())
    assert np.isfinite(read(tmp_path / "o.tif")).all()
