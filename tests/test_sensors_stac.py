"""Items of the known catalogues: their assets, what they say and what is true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from products import SIDE, plain, reflectance, seen_reflectance, stac_item, stored
from rasters import byte_picture, write_raster
from serving import keep_gdal_brisk, served

from slimdiffsr.errors import BandError, RasterError
from slimdiffsr.geo.inputs import look_at
from slimdiffsr.sensors import SensorOptions, known_raster
from slimdiffsr.sensors.stac import gdal_path


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """GDAL neither waits nor asks elsewhere."""
    keep_gdal_brisk(monkeypatch)


def truth() -> Any:
    return np.stack([reflectance(1, SIDE, seed=seed)[0] for seed in range(3)])


APPLIED, NEW = "earthsearch:boa_offset_applied", "s2:processing_baseline"


@pytest.mark.parametrize(
    ("kind", "offset", "properties", "said"),
    [
        ("earth-search", 0.0, {APPLIED: True, NEW: "05.11"}, "the offset was taken as 0"),
        ("earth-search", 0.0, {APPLIED: False, NEW: "05.11"}, "the offset was taken as 0"),
        ("earth-search", -0.1, {APPLIED: False, NEW: "05.11"}, ""),
        ("earth-search", -0.1, {APPLIED: True, NEW: "05.11"}, "the offset was taken as -0.1"),
        ("earth-search", 0.0, {APPLIED: False, NEW: "02.12"}, "the offset was taken as 0"),
        ("earth-search-c1", -0.1, {APPLIED: False, NEW: "05.11"}, ""),
        ("planetary-computer", -0.1, {NEW: "05.09"}, ""),
        ("planetary-computer", 0.0, {NEW: "03.01"}, ""),
        ("planetary-computer", 0.0, {NEW: "05.09"}, "the offset was taken as 0"),
        ("copernicus", -0.1, {}, ""),
        ("landsat", -0.2, {}, ""),
    ],
)
def test_an_item_is_seen_as_the_reflectance_it_means(
    tmp_path: Path, kind: str, offset: float, properties: dict[str, Any], said: str
) -> None:
    item = stac_item(tmp_path / "in", kind, offset=offset, **properties)
    known = known_raster(item)
    np.testing.assert_allclose(seen_reflectance(known), truth(), atol=1e-4)
    doubt = " ".join(known.remarks[1:])
    assert said in doubt
    assert bool(doubt) == bool(said)


def test_an_item_behind_http_is_read_in_ranges(tmp_path: Path) -> None:
    item = stac_item(tmp_path / "in", "copernicus", offset=-0.1)
    asked: list[str] = []
    with served(tmp_path / "in", "ranges", asked) as address:
        known = known_raster(f"{address}/{item.name}")
        np.testing.assert_allclose(seen_reflectance(known), truth(), atol=1e-4)
    assert asked


def test_assets_go_by_common_name_and_by_key(tmp_path: Path) -> None:
    item = stac_item(tmp_path, "copernicus", offset=-0.1)
    by_name = known_raster(item, SensorOptions(assets=("red", "green", "blue")))
    by_key = known_raster(item, SensorOptions(assets=("B04_10m", "B03_10m", "B02_10m")))
    assert by_name.path == by_key.path == known_raster(item).path
    alone = known_raster(item, SensorOptions(assets=("green",)))
    assert (alone.rgb, len(alone.meanings)) == (None, 1)


def test_wrong_items_are_refused_in_a_sentence(tmp_path: Path) -> None:
    item = stac_item(tmp_path, "copernicus", offset=-0.1)
    with pytest.raises(BandError, match=r"no asset 'nir': there are B02_10m, B02_10m-jp2, B03_10m"):
        known_raster(item, SensorOptions(assets=("nir",)))
    document = json.loads(item.read_text())
    del document["assets"]["B03_10m"], document["assets"]["B03_10m-jp2"]
    item.write_text(json.dumps(document))
    with pytest.raises(BandError, match="no asset for green: choose with --assets"):
        known_raster(item)
    item.write_text('{"type": "Feature", "ass')
    with pytest.raises(RasterError, match="no JSON, perhaps it was cut short"):
        known_raster(item)
    item.write_text("[]")
    with pytest.raises(RasterError, match="no STAC item"):
        known_raster(item)
    with served(tmp_path, "ranges") as address:
        with pytest.raises(RasterError, match=r"without credentials \(status 403\)"):
            known_raster(f"{address}/refused.json")
        with pytest.raises(RasterError, match="status 404"):
            known_raster(f"{address}/absent.json")


def test_assets_that_are_refused_say_what_is_missing(tmp_path: Path) -> None:
    item = stac_item(tmp_path, "copernicus", offset=-0.1)
    document = json.loads(item.read_text())
    with served(tmp_path, "ranges") as address:
        for asset in document["assets"].values():
            asset["href"] = f"{address}/refused/{asset['href']}"
        item.write_text(json.dumps(document))
        with pytest.raises(RasterError, match=r"without credentials: sign the links"):
            known_raster(item)


def test_bands_in_two_systems_are_refused(tmp_path: Path) -> None:
    item = stac_item(tmp_path, "copernicus", offset=-0.1)
    values = stored(reflectance(1), 1e-4, -0.1, "uint16")
    plain(tmp_path / "B03.tif", values, crs="EPSG:32633")
    with pytest.raises(RasterError, match="different CRSs, EPSG:26910 and EPSG:32633"):
        known_raster(item)


def test_a_signature_does_not_start_a_run_over(tmp_path: Path) -> None:
    write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20))
    with served(tmp_path, "ranges") as address:
        facts = [
            look_at(f"/vsicurl/{address}/in.tif?token={k}", ()).facts() for k in ("one", "two")
        ]
    assert facts[0] == facts[1]


def test_addresses_become_what_gdal_calls_them() -> None:
    assert gdal_path("https://a.b/c.tif?x=y") == "/vsicurl/https://a.b/c.tif?x=y"
    assert gdal_path("s3://bucket/key.jp2") == "/vsis3/bucket/key.jp2"
    assert gdal_path("/data/c.tif") == "/data/c.tif"
