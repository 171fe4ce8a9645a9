"""Sensors, products, catalogues, any scale: the commands as users give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from products import NEW, landsat, plain, reflectance, safe, stac_item, stored
from rasterio.warp import transform_bounds
from rasters import byte_picture, read, write_raster
from serving import keep_gdal_brisk, served
from typer.testing import CliRunner, Result

from slimdiffsr.cli import app
from slimdiffsr.sensors import SENSORS

BICUBIC = ("--model", "bicubic")
NAMES = ("B04", "B03", "B02")


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """GDAL neither waits nor asks elsewhere."""
    keep_gdal_brisk(monkeypatch)


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def done(*words: object) -> Result:
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result


def refused(*words: object) -> str:
    result = run(*words)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.slow
def test_a_safe_and_a_landsat_folder_are_inputs(tmp_path: Path) -> None:
    product = safe(tmp_path, "2A", "05.09", -1000)
    told = done("upscale", product, tmp_path / "s2.tif", *BICUBIC).output
    assert "sentinel-2-l2a" in told
    assert read(tmp_path / "s2.tif").shape == (3, 192, 192)
    scene = landsat(tmp_path / "in")
    done("upscale", scene, product, tmp_path / "many", *BICUBIC)
    names = {path.name for path in (tmp_path / "many").iterdir()}
    assert names == {f"{scene.name}_x4.tif", f"{product.stem}_x4.tif"}


@pytest.mark.slow
def test_a_folder_of_products_is_looked_through(tmp_path: Path) -> None:
    safe(tmp_path / "in", "2A", "05.09", -1000)
    write_raster(tmp_path / "in" / "plain.tif", byte_picture(3, 20, 20))
    result = done("upscale", tmp_path / "in", tmp_path / "out", *BICUBIC)
    assert len(list((tmp_path / "out").iterdir())) == 2, result.output


def test_an_item_gets_an_item_of_its_own(tmp_path: Path) -> None:
    item = stac_item(tmp_path / "in", "earth-search-c1", offset=-0.1, **{
        "s2:processing_baseline": "05.11", "platform": "sentinel-2b",
    })  # fmt: skip
    with served(tmp_path / "in", "ranges") as address:
        done("upscale", f"{address}/{item.name}", tmp_path / "out.tif", *BICUBIC)
    made = json.loads((tmp_path / "out.json").read_text())
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert made["properties"]["proj:shape"] == [dataset.height, dataset.width]
        assert made["properties"]["proj:transform"] == list(dataset.transform[:6])
        assert made["properties"]["proj:code"] == dataset.crs.to_string()
    assert made["properties"]["datetime"] == "2023-08-01T10:15:59Z"
    assert made["properties"]["platform"] == "sentinel-2b"
    assert made["properties"]["mlm:name"] == "bicubic"
    assert made["properties"]["gsd"] == 2.5
    (link,) = made["links"]
    assert link["rel"] == "derived_from"
    assert link["href"].endswith(item.name)
    assert made["assets"]["data"]["href"] == "./out.tif"
    import pystac
    from pystac.extensions.mlm import MLMExtension

    read_back = pystac.Item.from_dict(made)
    assert MLMExtension.ext(read_back).tasks == ["super-resolution"]
    words = refused("upscale", item, tmp_path / "out.tif", *BICUBIC)
    assert "exists already" in words


@pytest.mark.slow
def test_a_collection_becomes_a_folder_of_results(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    items = [
        stac_item(folder / kind, kind, offset=-0.1) for kind in ("copernicus", "earth-search-c1")
    ]
    old = json.loads(items[1].read_text())
    old["properties"]["datetime"] = "2019-05-05T10:00:00Z"
    items[1].write_text(json.dumps(old))
    links = [{"rel": "item", "href": str(item.relative_to(folder))} for item in items]
    (folder / "collection.json").write_text(
        json.dumps({"type": "Collection", "stac_version": "1.0.0", "id": "c", "links": links})
    )
    given = ("upscale", folder / "collection.json", tmp_path / "out", *BICUBIC)
    done(*given)
    assert len(list((tmp_path / "out").glob("*_x4.tif"))) == 2
    assert len(list((tmp_path / "out").glob("*.json"))) == 2
    result = done("upscale", folder / "collection.json", tmp_path / "one.tif", *BICUBIC,
                  "--datetime", "2023-06-01/2023-08-31")  # fmt: skip
    assert (tmp_path / "one.tif").exists(), result.output
    words = refused(*given, "--datetime", "2030-01-01/..")
    assert "none of the 2 items" in words
    assert "fits for 2030-01-01/.." in words
    assert "--datetime must be a date" in refused(*given, "--datetime", "yesterday")


def test_a_box_in_degrees_cuts_a_part_out(tmp_path: Path) -> None:
    item = stac_item(tmp_path / "in", "copernicus", offset=-0.1)
    with rasterio.open(tmp_path / "in" / "B04.tif") as dataset:
        box = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)  # type: ignore[no-untyped-call]
        left, bottom, right, top = box
    middle = ((left + right) / 2, (bottom + top) / 2)
    done("upscale", item, tmp_path / "out.tif", *BICUBIC, "--assets", "red,green,blue",
         "--bbox", f"{left} {bottom} {middle[0]} {middle[1]}")  # fmt: skip
    assert 90 <= read(tmp_path / "out.tif").shape[1] <= 112
    words = refused("upscale", item, tmp_path / "o.tif", *BICUBIC, "--bbox", "100 10 101 11")
    assert "none of the 1 items" in words
    words = refused("upscale", item, tmp_path / "o.tif", *BICUBIC, "--bbox", "10 46 9 47")
    assert "west south east north" in words


def test_any_scale_has_its_name(tmp_path: Path) -> None:
    path = plain(tmp_path / "in.tif", byte_picture(3, 40, 40))
    done("upscale", path, tmp_path / "3.tif", *BICUBIC, "--scale", "3")
    assert read(tmp_path / "3.tif").shape == (3, 120, 120)
    done("upscale", path, tmp_path / "r.tif", *BICUBIC, "--resolution", "2.5")
    with rasterio.open(tmp_path / "r.tif") as dataset:
        assert dataset.res == (2.5, 2.5)
    done("upscale", path, tmp_path / "m.tif", *BICUBIC, "--resolution", "4m")
    with rasterio.open(tmp_path / "m.tif") as dataset:
        assert dataset.res == (4.0, 4.0)
    done("upscale", path, f"{tmp_path}/many/", *BICUBIC, "--resolution", "5")
    assert [p.name for p in (tmp_path / "many").iterdir()] == ["in_5.tif"]
    words = refused("upscale", path, tmp_path / "o.tif", *BICUBIC, "--resolution", "2")
    assert "5 times, and this model makes more than 1 up to 4 times" in words
    assert "must be a number" in refused("upscale", path, tmp_path / "o.tif", "--resolution", "x")


def test_all_bands_go_two_ways(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "in.tif", byte_picture(4, 40, 40), descriptions=("red", "green", "blue", "nir")
    )
    for way in ("bicubic", "network"):
        done("upscale", path, tmp_path / f"{way}.tif", *BICUBIC, "--all-bands", way)
        assert len(read(tmp_path / f"{way}.tif")) == 4
    assert "bicubic or network" in refused(
        "upscale", path, tmp_path / "o.tif", "--all-bands", "all"
    )


@pytest.mark.slow
def test_one_range_for_all_inputs(tmp_path: Path) -> None:
    bright = stored(reflectance() * 2, 1e-4, 0, "uint16")
    dark = stored(reflectance() * 0.5, 1e-4, 0, "uint16")
    for name, values in (("a.tif", bright), ("b.tif", dark)):
        plain(tmp_path / name, values, ("red", "green", "blue"))
    result = done("upscale", tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "out", *BICUBIC,
                  "--range", "shared", "--json", "--quiet")  # fmt: skip
    ranges = [tuple(one["plan"]["value_range"]) for one in json.loads(result.stdout)]
    assert ranges[0] == ranges[1]
    assert ranges[0][0] < 300
    assert ranges[0][1] > 5000
    plain(tmp_path / NEW, stored(reflectance(), 1e-4, -0.1, "uint16"), NAMES)
    words = refused("upscale", tmp_path / "a.tif", tmp_path / NEW, tmp_path / "o", *BICUBIC,
                    "--range", "shared")  # fmt: skip
    assert "one kind" in words


def test_wrong_sensors_are_refused(tmp_path: Path) -> None:
    path = plain(tmp_path / NEW, stored(reflectance(), 1e-4, -0.1, "uint16"), NAMES)
    given = ("upscale", path, tmp_path / "o.tif", *BICUBIC)
    assert "no sensor 'spot'" in refused(*given, "--sensor", "spot")
    assert "give -0.1" in refused(*given, "--offset", "-1000")
    assert "none or planetary-computer" in refused(*given, "--sign", "me")
    assert "--assets are those of a STAC item" in refused(*given, "--assets", "red")
    assert "--nodata must be a number" in refused(*given, "--nodata", "empty")
    done(*given, "--sensor", "sentinel-2-l2a", "--offset", "-0.1", "--scale-factor", "0.0001",
         "--nodata", "none")  # fmt: skip


def test_sensors_are_listed_and_told(tmp_path: Path) -> None:
    listed = done("sensors").output
    assert all(name in listed for name in SENSORS)
    told = done("sensors", "planetscope").output
    assert "coastal: coastal_blue (3 m)" in told
    assert json.loads(done("sensors", "modis", "--json").output)["scale"] == 1e-4
    assert "no sensor" in refused("sensors", "spot")


@pytest.mark.slow
def test_a_search_writes_items_that_upscale_takes(tmp_path: Path) -> None:
    clouds: dict[str, Any] = {"eo:cloud_cover": 3}
    item = stac_item(tmp_path / "in", "copernicus", offset=-0.1, **clouds)
    site = tmp_path / "in"
    document = json.loads(item.read_text())
    with served(site, "ranges") as address:
        for asset in document["assets"].values():
            asset["href"] = f"{address}/{asset['href']}"
        found: dict[str, Any] = {"type": "FeatureCollection", "features": [document], "links": []}
        (site / "search.json").write_text(json.dumps(found))
        (site / "index.html").write_text(json.dumps({
            "type": "Catalog", "stac_version": "1.0.0", "id": "api", "description": "for tests",
            "conformsTo": ["https://api.stacspec.org/v1.0.0/core",
                           "https://api.stacspec.org/v1.0.0/item-search",
                           "https://api.stacspec.org/v1.0.0/item-search#query"],
            "links": [{"rel": "search", "href": f"{address}/search", "method": "POST", "type": "application/geo+json"},
                      {"rel": "self", "href": address}],
        }))  # fmt: skip
        done("search", address, tmp_path / "items", "--collection", "sentinel-2-l2a",
             "--bbox", "10 45 11 46", "--datetime", "2023-08-01", "--cloud", "20")  # fmt: skip
        (saved,) = (tmp_path / "items").iterdir()
        done("upscale", saved, tmp_path / "out.tif", *BICUBIC)
        (site / "search.json").write_text(json.dumps({**found, "features": []}))
        words = refused(
            "search", address, tmp_path / "i", "--collection", "s2", "--datetime", "2023"
        )
        assert "has no scenes for 2023" in words
    words = refused("search", "http://127.0.0.1:9", tmp_path / "i", "--collection", "s2")
    assert "does not answer as a STAC API" in words
    np.testing.assert_array_equal(read(tmp_path / "out.tif").shape, (3, 192, 192))


@pytest.mark.slow
def test_a_zarr_folder_and_a_subdataset_are_inputs(tmp_path: Path) -> None:
    values = byte_picture(3, 20, 30)
    with rasterio.open(plain(tmp_path / "in.tif", values)) as dataset:
        rasterio.shutil.copy(dataset, tmp_path / "in.zarr", driver="Zarr")
    done("upscale", tmp_path / "in.zarr", tmp_path / "out.tif", *BICUBIC, "--bands", "1,2,3")
    done("upscale", tmp_path / "in.tif", tmp_path / "plain.tif", *BICUBIC, "--bands", "1,2,3")
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), read(tmp_path / "plain.tif"))
    with rasterio.open(tmp_path / "in.zarr") as dataset:
        (one, *_) = dataset.subdatasets or [f'ZARR:"{tmp_path}/in.zarr"']
    done("upscale", one, tmp_path / "sub.tif", *BICUBIC)
    assert "GeoTIFF" in refused("upscale", tmp_path / "in.tif", tmp_path / "o.zarr", *BICUBIC)
