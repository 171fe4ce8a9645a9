"""Generated products with exact values: SAFE trees, Landsat folders, plain rasters; and a spy that
says which reflectance a network saw."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.warp import transform_bounds
from rasters import write_raster

from slimdiffsr.geo import KnownRaster, Network, SceneOptions
from slimdiffsr.geo.environment import gdal
from slimdiffsr.geo.job import decide
from slimdiffsr.geo.pipeline import compute_chunk
from slimdiffsr.geo.raster import open_source

SIDE = 48  # pixels of 10 m; the other grids follow
NEW = "S2B_MSIL2A_20230801T101559_N0509_R065_T32TQM_20230801T143500.tif"
CORNER = (600000.0, 5000040.0)
MSI = {
    "B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10,
    "B8A": 20, "B09": 60, "B10": 60, "B11": 20, "B12": 20,
}  # fmt: skip


def reflectance(bands: int = 3, side: int = SIDE, seed: int = 0) -> NDArray[np.float64]:
    """(bands, side, side) from 0.02 to 0.28: dark water and bright soil, all inside the range."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.02, 0.28, (bands, side, side))


def stored(truth: NDArray[np.float64], scale: float, offset: float, dtype: str) -> NDArray[Any]:
    """The numbers that mean this reflectance: truth = scale * stored + offset."""
    return np.rint((truth - offset) / scale).astype(dtype)


def seen_reflectance(
    known: KnownRaster, options: SceneOptions | None = None
) -> NDArray[np.float64]:
    """(3, h, w): what a network saw of a scene that one tile holds, as reflectance."""
    batches: list[NDArray[np.float32]] = []

    def predict(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        batches.append(batch.copy())
        return batch.repeat(4, axis=2).repeat(4, axis=3)

    network = Network(
        scale=4, tile_hr_px=4 * SIDE, overlap_hr_px=0, model_id="spy", predict=predict
    )
    with gdal(), open_source(known) as source:
        job = decide(source, network, options or SceneOptions())
        for chunk_hr in job.chunks():
            compute_chunk(job, chunk_hr, network)
    (batch,) = batches
    assert known.rgb is not None
    meanings = [known.meanings[band - 1] for band in known.rgb]
    black = np.array([one.black for one in meanings])[:, None, None]
    white = np.array([one.white for one in meanings])[:, None, None]
    seen: NDArray[np.float64] = batch[0].astype(np.float64) * (white - black) + black
    return seen


def plain(path: Path, values: NDArray[Any], names: tuple[str, ...] = (), **profile: Any) -> Path:
    """A GeoTIFF of 10 m pixels."""
    scales, offsets = profile.pop("scales", None), profile.pop("offsets", None)
    path = write_raster(
        path, values, transform=Affine(10, 0, CORNER[0], 0, -10, CORNER[1]),
        **({"descriptions": names} if names else {}), **profile,
    )  # fmt: skip
    if scales is not None:
        with rasterio.open(path, "r+") as dataset:
            dataset.scales, dataset.offsets = scales, offsets
    return path


def _jp2(path: Path, values: NDArray[Any], pixel_m: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", width=values.shape[1], height=values.shape[0], count=1,
        dtype=values.dtype, crs="EPSG:32632", QUALITY="100", REVERSIBLE="YES",
        transform=Affine(pixel_m, 0, CORNER[0], 0, -pixel_m, CORNER[1]),
    ) as dataset:  # fmt: skip
        dataset.write(values, 1)


def msi_reflectance() -> dict[str, NDArray[np.float64]]:
    """Each band of MSI on its own grid."""
    return {
        name: reflectance(1, SIDE * 10 // pixel_m, seed=k)[0]
        for k, (name, pixel_m) in enumerate(MSI.items())
    }


def safe(
    folder: Path,
    level: str,
    baseline: str,
    offset: int | None,
    *,
    old: bool = False,
    empty_px: int = 0,
    seen: NDArray[np.float64] | None = None,
) -> Path:
    """A SAFE of an L1C or L2A product, "1C" or "2A"; returns its folder.

    offset: BOA_ADD_OFFSET or RADIO_ADD_OFFSET in stored numbers, None: none is written. old: names
    as before December 2016. empty_px: columns of zeros at the left, in 10 m pixels. seen: what
    every band sees, at 10 m; default: each something of its own.
    """
    number = baseline.replace(".", "")
    uri = f"S2A_MSIL{level}_20230801T101601_N{number}_R065_T32TPQ_20230801T143500.SAFE"
    granule = "L1C_T32TPQ_A042345_20230801T101601" if level == "1C" else "L2A_T32TPQ_A042345"
    if old:
        uri = f"S2A_OPER_PRD_MSIL{level}_PDMC_20160801T101601_R065_V20160801.SAFE"
        granule = f"S2A_OPER_MSI_L{level}_TL_SGS__20160801T101601_A005800_T32TPQ_N{number}"
    root = folder / uri
    images = []
    for name, rho in msi_reflectance().items():
        if level == "2A" and name == "B10":
            continue
        pixel_m = MSI[name]
        if seen is not None:
            times = pixel_m // 10
            rho = seen.reshape(SIDE // times, times, SIDE // times, times).mean((1, 3))
        values = stored(rho, 1e-4, (offset or 0) / 1e4, "uint16")
        values[:, : empty_px * 10 // pixel_m] = 0
        images.append(_image(root, granule, level, name, old))
        _jp2(root / f"{images[-1]}.jp2", values, pixel_m)
        if level == "2A" and pixel_m == 10:  # the same bands come at 20 m too
            coarse = f"{images[-1][:-4].replace('R10m', 'R20m')}_20m"
            _jp2(root / f"{coarse}.jp2", values[::2, ::2], 20)
            images.append(coarse)
    metadata = f"MTD_MSIL{level}.xml"
    if old:
        metadata = f"S2A_OPER_MTD_SAFL{level}_PDMC_20160801T101601_R065_V20160801.xml"
        images = [image.rpartition("/")[2] for image in images]
    (root / metadata).write_text(_mtd(uri, level, baseline, offset, images, old))
    return root


def _image(root: Path, granule: str, level: str, band: str, old: bool) -> str:
    place = f"GRANULE/{granule}/IMG_DATA"
    stem = granule.rpartition("_N")[0] if old else "T32TPQ_20230801T101601"
    if level == "1C":
        return f"{place}/{stem}_{band}"
    return f"{place}/R{MSI[band]}m/{stem}_{band}_{MSI[band]}m"


def _mtd(
    uri: str, level: str, baseline: str, offset: int | None, images: list[str], old: bool
) -> str:
    key = "IMAGE_FILE"
    if old:
        key = "IMAGE_ID" if level == "1C" else "IMAGE_ID_2A"
    listed = "".join(f"<{key}>{image}</{key}>" for image in images)
    tag, around = ("BOA_ADD_OFFSET", "BOA_ADD_OFFSET_VALUES_LIST")
    factor = '<BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>'
    if level == "1C":
        tag, around = ("RADIO_ADD_OFFSET", "Radiometric_Offset_List")
        factor = '<QUANTIFICATION_VALUE unit="none">10000</QUANTIFICATION_VALUE>'
    offsets = ""
    if offset is not None:
        each = "".join(f'<{tag} band_id="{k}">{offset}</{tag}>' for k in range(13))
        offsets = f"<{around}>{each}</{around}>"
    return (
        f'<?xml version="1.0"?><n1:Level-{level}_User_Product '
        f'xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{level}.xsd">'
        f"<n1:General_Info><Product_Info><PRODUCT_URI>{uri}</PRODUCT_URI>"
        f"<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE><Product_Organisation>"
        f"<Granule_List><Granule>{listed}</Granule></Granule_List></Product_Organisation>"
        f"</Product_Info><Product_Image_Characteristics>{factor}{offsets}"
        "</Product_Image_Characteristics></n1:General_Info>"
        f"</n1:Level-{level}_User_Product>"
    )


def zipped(folder: Path) -> Path:
    """A zip of a product's folder, beside it."""
    path = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


def landsat(folder: Path, satellite: str = "LC09", metadata: str = "json") -> Path:
    """A Collection 2 Level-2 folder; metadata: json, txt, xml or "" for none."""
    scene = f"{satellite}_L2SP_193029_20230801_20230803_02_T1"
    root = folder / scene
    root.mkdir(parents=True)
    count = 7
    for number in range(1, count + 1):
        if satellite[3] in "457" and number == 6:
            continue
        values = stored(reflectance(1, SIDE, seed=number), 2.75e-5, -0.2, "uint16")
        write_raster(
            root / f"{scene}_SR_B{number}.TIF", values,
            transform=Affine(30, 0, CORNER[0], 0, -30, CORNER[1]), nodata=0,
        )  # fmt: skip
    group = "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"
    pairs = {
        key: value
        for n in range(1, count + 1)
        for key, value in (
            (f"REFLECTANCE_MULT_BAND_{n}", "2.75e-05"), (f"REFLECTANCE_ADD_BAND_{n}", "-0.2"),
        )
    }  # fmt: skip
    text = {
        "json": json.dumps({"LANDSAT_METADATA_FILE": {group: pairs}}),
        "txt": f"GROUP = {group}\n" + "".join(f"  {k} = {v}\n" for k, v in pairs.items()),
        "xml": f"<M><{group}>" + "".join(f"<{k}>{v}</{k}>" for k, v in pairs.items())
        + f"</{group}></M>",
    }  # fmt: skip
    if metadata:
        (root / f"{scene}_MTL.{metadata}").write_text(text[metadata])
    return root


def stac_item(
    folder: Path, kind: str, *, offset: float = 0.0, base: str = "", **properties: Any
) -> Path:
    """An item of the shape that a known catalogue gives it, and its files; returns the item.

    offset: what the numbers really carry, truth = 1e-4 * stored + offset. base: of the addresses.
    """
    name, extra, shape = _CATALOGUES[kind]
    folder.mkdir(parents=True, exist_ok=True)
    assets: dict[str, Any] = {}
    scale, really = (2.75e-5, -0.2) if kind == "landsat" else (1e-4, offset)
    for seed, (role, band) in enumerate({"red": "B04", "green": "B03", "blue": "B02"}.items()):
        values = stored(reflectance(1, SIDE, seed=seed), scale, really, "uint16")
        key, described = shape(role, band)
        plain(folder / f"{band}.tif", values, tiled=True, blockxsize=16, blockysize=16)
        cog = "image/tiff; application=geotiff; profile=cloud-optimized"
        assets[key] = {"href": f"{base}{band}.tif", "type": cog, "roles": ["data"], **described}
        assets[f"{key}-jp2"] = {**assets[key], "href": f"{base}{band}.jp2", "type": "image/jp2"}
    with rasterio.open(folder / "B04.tif") as dataset:
        box = list(transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds))  # type: ignore[no-untyped-call]
    document = {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": extra["collection"],
        "geometry": None, "bbox": box, "assets": assets, "links": [],
        "properties": {"datetime": "2023-08-01T10:15:59Z", **extra["properties"], **properties},
    }  # fmt: skip
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document))
    return path


def _raster(offset: float, scale: float = 1e-4) -> dict[str, Any]:
    return {"nodata": 0, "data_type": "uint16", "scale": scale, "offset": offset}


def _earth_search(role: str, band: str) -> tuple[str, dict[str, Any]]:
    return role, {
        "eo:bands": [{"name": role, "common_name": role}], "raster:bands": [_raster(-0.1)],
    }  # fmt: skip


def _planetary(role: str, band: str) -> tuple[str, dict[str, Any]]:
    return band, {"eo:bands": [{"name": band, "common_name": role}], "gsd": 10.0}


def _copernicus(role: str, band: str) -> tuple[str, dict[str, Any]]:
    return f"{band}_10m", {
        "bands": [{"name": band, "eo:common_name": role}], "raster:scale": 1e-4,
        "raster:offset": -0.1, "nodata": 0, "gsd": 10,
    }  # fmt: skip


def _usgs(role: str, band: str) -> tuple[str, dict[str, Any]]:
    number = {"red": 4, "green": 3, "blue": 2}[role]
    return role, {
        "eo:bands": [{"name": f"OLI_B{number}", "common_name": role}],
        "raster:bands": [_raster(-0.2, 2.75e-5)],
    }  # fmt: skip


_CATALOGUES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "earth-search": (
        "S2B_33UXP_20250302_0_L2A", {"collection": "sentinel-2-l2a", "properties": {}},
        _earth_search,
    ),
    "earth-search-c1": (
        "S2B_T33UXP_20250302T095029_L2A", {"collection": "sentinel-2-c1-l2a", "properties": {}},
        _earth_search,
    ),
    "planetary-computer": (
        "S2B_MSIL2A_20260124T191559_R056_T10TET_20260124T211343",
        {"collection": "sentinel-2-l2a", "properties": {}}, _planetary,
    ),
    "copernicus": (
        "S2B_MSIL2A_20250302T095029_N0511_R079_T33UXP_20250302T104753",
        {"collection": "sentinel-2-l2a", "properties": {"processing:version": "05.11"}},
        _copernicus,
    ),
    "landsat": (
        "LC09_L2SP_193029_20230801_20230803_02_T1_SR",
        {"collection": "landsat-c2l2-sr", "properties": {"platform": "LANDSAT_9"}}, _usgs,
    ),
}  # fmt: skip
