"""A header is read in parts: what is odd in one costs that part and a note, never the process."""

import os
import re
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasters import FIXTURES, UTM, byte_picture, nearest, read, repeat, write_raster

from slimdiffsr.errors import RasterError, TilingError
from slimdiffsr.geo import NetworkSpec, SceneOptions, plan_scene, upscale_scene
from slimdiffsr.geo.environment import gdal
from slimdiffsr.geo.georef import own_transform
from slimdiffsr.geo.known import as_known
from slimdiffsr.geo.raster import open_source

SPEC = NetworkSpec(scale=4, tile_hr_px=64, overlap_hr_px=16, model_id="x")


def plain(folder: Path, **more: Any) -> Path:
    return write_raster(folder / "in.tif", byte_picture(3, 20, 24), photometric="RGB", **more)


def pictures_only(path: Path, values: Any, **more: Any) -> Path:
    with pytest.warns(NotGeoreferencedWarning):
        return write_raster(path, values, crs=None, transform=Affine.identity(), **more)


def enlarged(path: Path, **options: Any) -> tuple[Any, tuple[str, ...]]:
    """The output, open, and what was assumed."""
    out = path.with_name("out.tif")
    report = upscale_scene(path, out, nearest(), SceneOptions(overwrite=True, **options))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(out), report.assumptions


@pytest.mark.parametrize(
    "name", ["gcp_id_not_utf8", "nodata_beyond_int16", "palette_without_colours", "alos/scene"]
)
def test_real_headers_that_ended_the_process(name: str, tmp_path: Path) -> None:
    path = FIXTURES / "odd" / f"{name}.tif"
    if not path.exists():
        pytest.skip(f"no {path}: the real rasters are not part of the repository")
    options = SceneOptions(window=(0, 0, 20, 20))
    upscale_scene(path, tmp_path / "o.tif", nearest(), options)
    with warnings.catch_warnings():  # it lies nowhere, and that is right
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        assert read(tmp_path / "o.tif").shape == (1, 80, 80)


def test_a_tag_without_a_name_does_not_end_the_process(tmp_path: Path) -> None:
    # GDAL takes a file of this name for ALOS metadata; what is no NAME=VALUE in it has no name.
    path = plain(tmp_path)
    (tmp_path / "summary.txt").write_text("scene.tif  73x43 8-bit image\n" * 5)
    with gdal(), open_source(as_known(path)) as source:
        assert "" not in source.described.domains.get("IMD", {})
    out, _ = enlarged(path)
    with out:
        assert out.count == 3


def test_tags_of_every_namespace_reach_the_output(tmp_path: Path) -> None:
    path = plain(tmp_path)
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><x:a x:b="1"/></x:xmpmeta>'
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="MINE", COLOUR="a & b", NUMBER="5")
        dataset.update_tags(ns="EXIF", EXIF_Make="Maker")
        dataset.update_tags(2, WAVELENGTH="560", NAME="green & more")
    vrt = tmp_path / "in.vrt"
    rasterio.shutil.copy(path, vrt, driver="VRT", COPY_SRC_MDD="YES")
    document = f'  <Metadata domain="xml:XMP" format="xml">{xmp}</Metadata>\n'
    vrt.write_text(vrt.read_text().replace("  <VRTRasterBand", document + "  <VRTRasterBand", 1))
    for fmt in ("cog", "gtiff"):
        out, _ = enlarged(vrt, format=fmt)
        with out:
            assert out.tags(ns="MINE") == {"COLOUR": "a & b", "NUMBER": "5"}
            assert out.tags(ns="EXIF") == {"EXIF_Make": "Maker"}
            assert 'xmlns:x="adobe:ns:meta/"' in out.tags(ns="xml:XMP")["xml:XMP"]
            assert out.tags(2) == {"WAVELENGTH": "560", "NAME": "green & more"}
            assert out.tags(1) == {}
            assert not any("~" in key for key in out.tags())


def test_control_points_with_names_that_are_no_words_are_kept(tmp_path: Path) -> None:
    points = [
        GroundControlPoint(row=r, col=c, x=c * 2, y=-r * 2, z=0, id="name?")  # type: ignore[no-untyped-call]
        for r, c in ((0, 0), (0, 24), (20, 0), (20, 24))
    ]
    path = pictures_only(tmp_path / "page.tif", byte_picture(1, 20, 24))
    with rasterio.open(path, "r+") as dataset:
        dataset.gcps = (points, CRS.from_epsg(26910))
    vrt = tmp_path / "in.vrt"
    rasterio.shutil.copy(path, vrt, driver="VRT")
    content = vrt.read_bytes()
    vrt.write_bytes(re.sub(rb'<GCP Id="[^"]*"', b'<GCP Id="\xbd\xad"', content))
    out, _ = enlarged(vrt)
    with out:
        assert [(p.row, p.col) for p in out.gcps[0]] == [(0, 0), (0, 96), (80, 0), (80, 96)]
        assert out.gcps[1] == CRS.from_epsg(26910)


RPCS = {
    "LINE_OFF": "14.5", "SAMP_OFF": "19.5", "LINE_SCALE": "15", "SAMP_SCALE": "20",
    "LAT_OFF": "40", "LONG_OFF": "10", "LAT_SCALE": "0.1", "LONG_SCALE": "0.1",
    "HEIGHT_OFF": "0", "HEIGHT_SCALE": "500",
    **dict.fromkeys(("LINE_DEN_COEFF", "SAMP_DEN_COEFF"), " ".join(["1"] + ["0"] * 19)),
    **dict.fromkeys(("LINE_NUM_COEFF", "SAMP_NUM_COEFF"), " ".join(["0", "1"] + ["0"] * 18)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"), [("+000014.50 pixels", "59.5"), ("LINE_OFF", None), ("", None)]
)
def test_rational_polynomials_that_are_no_plain_numbers(
    tmp_path: Path, text: str, expected: str | None
) -> None:
    path = pictures_only(tmp_path / "page.tif", byte_picture(1, 20, 24))
    vrt = tmp_path / "in.vrt"
    rasterio.shutil.copy(path, vrt, driver="VRT")
    tags = "".join(
        f'<MDI key="{key}">{value}</MDI>' for key, value in {**RPCS, "LINE_OFF": text}.items()
    )
    words = f'  <Metadata domain="RPC">{tags}</Metadata>\n  <VRTRasterBand'
    vrt.write_text(vrt.read_text().replace("  <VRTRasterBand", words, 1))
    out, assumed = enlarged(vrt)
    with out:
        assert out.tags(ns="RPC").get("LINE_OFF") == expected
    assert any("RPC" in words for words in assumed) == (expected is None)


def test_a_palette_without_colours_is_grey(tmp_path: Path) -> None:
    values = byte_picture(1, 20, 24)
    path = write_raster(tmp_path / "page.tif", values)
    vrt = tmp_path / "in.vrt"
    rasterio.shutil.copy(path, vrt, driver="VRT")
    vrt.write_text(vrt.read_text().replace("<ColorInterp>Gray<", "<ColorInterp>Palette<"))
    out, assumed = enlarged(vrt, colour="none")
    with out:
        np.testing.assert_array_equal(out.read(), repeat(values, 4))
        assert out.colorinterp == (ColorInterp.gray,)
    assert "palette, but has none" in assumed[0]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_white_is_zero_keeps_its_type(tmp_path: Path, dtype: str) -> None:
    values = byte_picture(1, 20, 24).astype(dtype)
    path = write_raster(tmp_path / "in.tif", values, photometric="MINISBLACK")
    entry = struct.pack("<HHI", 262, 3, 1)  # PhotometricInterpretation, one short
    path.write_bytes(path.read_bytes().replace(entry + b"\1", entry + b"\0"))
    out, assumed = enlarged(path, colour="none")
    with out:
        assert out.dtypes == (dtype,)
        assert out.colorinterp == (ColorInterp.gray,)
        wanted = np.iinfo(dtype).max - repeat(values, 4)
        # Beyond the range estimated for 16 bits, what is added back is smooth.
        np.testing.assert_allclose(out.read(), wanted, atol=0 if dtype == "uint8" else 8)
    assert "Zero is white" in assumed[0]


def test_a_grey_palette_stays_one_band(tmp_path: Path) -> None:
    values = byte_picture(1, 20, 24) // 64
    path = write_raster(tmp_path / "in.tif", values, photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {k: (80 * k, 80 * k, 80 * k) for k in range(4)})
    out, _ = enlarged(path, colour="none")
    with out:
        np.testing.assert_array_equal(out.read(), repeat(values * 80, 4))


def test_three_bands_without_colours_are_named(tmp_path: Path) -> None:
    values = byte_picture(4, 20, 24).astype(np.uint16) * 40
    path = write_raster(tmp_path / "in.tif", values, photometric="MINISBLACK")
    out, _ = enlarged(path, all_bands=True)
    with out:
        assert [c.name for c in out.colorinterp] == ["red", "green", "blue", "undefined"]


def test_grey_stored_as_colours_gets_no_tint(tmp_path: Path) -> None:
    def tinted(batch: Any) -> Any:
        big = batch.repeat(4, axis=2).repeat(4, axis=3)
        big[:, 0] += 0.1
        return big

    grey = np.repeat(byte_picture(1, 40, 40), 3, axis=0)
    grey[:, :, 30:] = byte_picture(3, 40, 10)
    path = write_raster(tmp_path / "in.tif", grey, photometric="RGB")
    network = nearest()
    network = type(network)(**{**vars(network), "predict": tinted})
    upscale_scene(path, tmp_path / "o.tif", network, SceneOptions(colour="none"))
    red, green, blue = read(tmp_path / "o.tif").astype(int)
    np.testing.assert_array_equal(red[:, :60], green[:, :60])
    np.testing.assert_array_equal(blue[:, :60], green[:, :60])
    assert (red - green)[:, 140:].mean() > 10  # where there is colour, nothing is taken away


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_on_its_side_is_turned(tmp_path: Path, orientation: int) -> None:
    image = pytest.importorskip("PIL.Image")
    ops = pytest.importorskip("PIL.ImageOps")
    stored = np.kron(byte_picture(1, 5, 3)[0], np.ones((8, 8), np.uint8))
    path, exif = tmp_path / "in.jpg", image.Exif()
    exif[0x0112] = orientation
    image.fromarray(stored).save(path, exif=exif, quality=100)
    with image.open(path) as picture:
        upright = np.asarray(ops.exif_transpose(picture))
    out, assumed = enlarged(path, colour="none")
    with out:
        np.testing.assert_array_equal(out.read(1), np.kron(upright, np.ones((4, 4), np.uint8)))
        assert out.tags()["EXIF_Orientation"] == "1"
    assert any("on its side" in words for words in assumed) == (orientation > 1)
    out, _ = enlarged(path, colour="none", window=(3, 5, 10, 12))
    with out:
        part = upright[5:17, 3:13]
        np.testing.assert_array_equal(out.read(1), np.kron(part, np.ones((4, 4), np.uint8)))


def test_any_map_files_have_no_place(tmp_path: Path) -> None:
    path = tmp_path / "in.ppm"
    path.write_bytes(b"P6\n24 20\n255\n" + byte_picture(3, 20, 24).transpose(1, 2, 0).tobytes())
    out, _ = enlarged(path)
    with out:
        assert out.transform == Affine.identity()
    with pytest.raises(TilingError, match="no map coordinates"):
        plan_scene(path, SPEC, SceneOptions(bounds=(0, 0, 1, 1)))
    with gdal(), open_source(path) as source:
        told = SimpleNamespace(driver="PNM", name=str(path), transform=Affine(3, 0, 5, 0, 3, 5))
        assert own_transform(told) is None  # whatever GDAL's memory held
        assert own_transform(source.dataset) is None
    (tmp_path / "in.wld").write_text("2\n0\n0\n-2\n101\n199\n")
    out, _ = enlarged(path)
    with out:
        assert out.transform.c == 100  # world files tell the centre of the corner's pixel


def test_a_transform_to_nowhere_is_said(tmp_path: Path) -> None:
    vrt = tmp_path / "in.vrt"
    rasterio.shutil.copy(
        write_raster(tmp_path / "page.tif", byte_picture(1, 9, 9)), vrt, driver="VRT"
    )
    zeros = "<GeoTransform>5, 0, 0, 7, 0, 0<"
    vrt.write_text(re.sub("<GeoTransform>[^<]*<", zeros, vrt.read_text()))
    with pytest.raises(TilingError, match="no map coordinates"):
        plan_scene(vrt, SPEC, SceneOptions(bounds=(0, 0, 1, 1)))
    assert any("no place on a map" in words for words in enlarged(vrt)[1])


@pytest.mark.parametrize("fmt", ["cog", "gtiff"])
@pytest.mark.parametrize("code", [7415, 5972, 26910, 4979])
def test_a_coordinate_system_keeps_its_code(tmp_path: Path, code: int, fmt: Any) -> None:
    path = plain(tmp_path, crs=f"EPSG:{code}")
    out, assumed = enlarged(path, format=fmt)
    with out, rasterio.open(path) as src:
        assert out.crs == src.crs
        assert out.crs.to_epsg() == src.crs.to_epsg()
    assert assumed == ()


def test_what_a_side_file_says_is_said(tmp_path: Path) -> None:
    path = plain(tmp_path)
    (tmp_path / "in.tif.aux.xml").write_text(
        '<PAMDataset><SRS>EPSG:32633</SRS><PAMRasterBand band="1"><NoDataValue>7</NoDataValue>'
        "</PAMRasterBand></PAMDataset>"
    )
    with rasterio.open(path) as src:
        told = [part for part, differs in (
            ("coordinate system", src.crs.to_epsg() != 26910), ("nodata", src.nodata == 7))
            if differs]  # fmt: skip
    assumptions = plan_scene(path, SPEC).assumptions
    assert told
    assert any("in.tif.aux.xml says its" in words and told[-1] in words for words in assumptions)


def foreign_database(folder: Path) -> Path:
    folder.mkdir()
    (folder / "proj.db").write_bytes(b"of another version")
    return folder


@pytest.mark.parametrize(
    ("variable", "make"),
    [("PROJ_DATA", foreign_database), ("PROJ_LIB", lambda folder: folder / "none")],
)
def test_another_installations_projections_do_no_harm(
    tmp_path: Path, variable: str, make: Callable[[Path], Path]
) -> None:
    path = plain(tmp_path)
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from rasters import nearest
from slimdiffsr.errors import RasterError
from slimdiffsr.geo import upscale_scene
import rasterio
try:
    upscale_scene({str(path)!r}, {str(tmp_path / "o.tif")!r}, nearest())
    print(rasterio.open({str(tmp_path / "o.tif")!r}).crs.to_epsg())
except RasterError as error:
    print("refused:", error)
"""
    source = Path(open_source.__code__.co_filename).parents[2]
    environment = {
        **os.environ, variable: str(make(tmp_path / "foreign")), "PYTHONPATH": str(source),
        "GDAL_DATA": str(tmp_path / "none"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    own = (Path(rasterio.__file__).parent / "proj_data" / "proj.db").exists()  # a wheel's
    assert done.stdout.strip() == "26910" if own else "proj.db" in done.stdout


def test_a_claim_that_no_file_of_its_size_can_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.bmp"
    head = struct.pack("<2sIHHI", b"BM", 154, 0, 0, 54)
    info = struct.pack("<IiiHHIIiiII", 40, 3_000_000, 2_000_000, 1, 24, 0, 0, 0, 0, 0, 0)
    path.write_bytes(head + info + bytes(100))
    with pytest.raises(RasterError, match="claims 3000000 x 2000000 pixels"):
        plan_scene(path, SPEC)


def test_inks_are_refused(tmp_path: Path) -> None:
    vrt = tmp_path / "in.vrt"
    rasterio.shutil.copy(
        write_raster(tmp_path / "page.tif", byte_picture(4, 9, 9)), vrt, driver="VRT"
    )
    inks = iter(("Cyan", "Magenta", "Yellow", "Black"))
    vrt.write_text(re.sub("(?<=<ColorInterp>)[^<]*", lambda _: next(inks), vrt.read_text()))
    with pytest.raises(RasterError, match="inks"):
        plan_scene(vrt, SPEC)


def test_a_name_that_is_not_utf8_is_one_sentence(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tif")
    try:
        Path(name).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    with pytest.raises(RasterError, match=r"caf\\udce9.tif is not UTF-8") as caught:
        plan_scene(name, SPEC)
    str(caught.value).encode()


def test_a_name_too_long_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(RasterError, match="does not exist"):
        plan_scene(tmp_path / ("x" * 300 + ".tif"), SPEC)


@pytest.mark.parametrize("thing", [np.zeros((3, 3)), 5, None])
def test_what_is_no_path_is_named(thing: Any) -> None:
    with pytest.raises(RasterError, match=f"given by its path, got {type(thing).__name__}"):
        plan_scene(thing, SPEC)


def test_thousands_of_bands_are_planned(tmp_path: Path) -> None:
    path = tmp_path / "in.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=4, height=4, count=5000, dtype="uint8", transform=UTM
    ):
        pass
    assert plan_scene(path, SPEC).rgb_bands == (1, 2, 3)
