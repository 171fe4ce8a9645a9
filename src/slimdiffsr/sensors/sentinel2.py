"""Sentinel-2 products as ESA delivers them: SAFE folders and zips, L1C and L2A, old and new.

The bands are found by the list of images in the product's MTD file, and opened as JPEG 2000, so
that all resolutions come at once and zips need no unpacking; its offsets and factors are those of
these very files. (GDAL's SENTINEL2 driver gives one resolution at a time: its subdatasets are
taken too, as any raster.)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree import ElementTree as Xml

from slimdiffsr.errors import RasterError
from slimdiffsr.sensors.composite import BandFile, compose
from slimdiffsr.sensors.presets import SENSORS
from slimdiffsr.sensors.product import BandFacts, Product
from slimdiffsr.sensors.store import Store, read_xml

__all__ = ["find_metadata", "sentinel2_product"]

_MTD = re.compile(r"(MTD_MSIL(1C|2A)|S2._(OPER|USER)_MTD_SAFL(1C|2A)\w*)\.xml$")
_BAND_IDS = (
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12",
)  # fmt: skip
_IMAGE = re.compile(r"_(B\d\w)(?:_(\d\d)m)?$")


@dataclass(frozen=True, slots=True)
class _Metadata:
    level: str  # "l1c" or "l2a"
    quantification: float
    offsets: dict[str, float]  # stored numbers to add, by band
    baseline: float | None
    images: tuple[str, ...]  # without suffix, as the MTD lists them
    uri: str


def find_metadata(store: Store) -> str | None:
    """The name of the product's MTD file in a store; None where it is no Sentinel-2 product."""
    names = [name for name in store.names if _MTD.search(name) and "GRANULE" not in name]
    return min(names, key=lambda name: name.count("/"), default=None)


def sentinel2_product(store: Store, all_bands: bool) -> Product:
    """The bands of a SAFE on the 10 m grid: red, green, blue, or with ``all_bands`` all of them.

    Raises RasterError when the MTD file or images that it lists are missing or damaged, or when
    an old product holds several tiles.
    """
    name = find_metadata(store)
    if name is None:
        raise RasterError(
            f"{store.path} is a SAFE without its MTD_MSIL1C.xml or MTD_MSIL2A.xml: it was cut "
            "short, fetch it again"
        )
    read = _read(read_xml(store, name), store, name)
    sensor = SENSORS[f"sentinel-2-{read.level}"]
    images = _finest(_located(store, name, read))
    files = []
    for band in (b for b in _BAND_IDS if b in images):
        role = sensor.role_of(band) or ""
        if not all_bands and role not in ("red", "green", "blue"):
            continue
        if role == "cirrus" and read.level == "l2a":
            continue
        facts = BandFacts(
            name=band, role=role, scale=1 / read.quantification, nodata=sensor.nodata,
            offset=read.offsets.get(band, 0.0) / read.quantification,
        )  # fmt: skip
        files.append(BandFile(store.gdal(images[band]), facts))
    missing = {"red", "green", "blue"} - {file.facts.role for file in files}
    if missing:
        raise RasterError(
            f"{store.path} lacks its {', '.join(sorted(missing))} band: it was cut short, fetch it "
            "again"
        )
    made = compose(str(store.path), files)
    return Product(
        path=made.vrt, name=str(store.path), dtype=made.dtype, bands=made.bands,
        coarser=made.coarser,
        files=made.files,
        words=(read.uri,), sensor=sensor.name, baseline=read.baseline, binding=True,
        declared_by=f"{'BOA' if read.level == 'l2a' else 'RADIO'}_ADD_OFFSET of "
        f"{PurePosixPath(name).name}" if read.offsets else f"no offset in {PurePosixPath(name).name}",
    )  # fmt: skip


def _read(root: Xml.Element, store: Store, name: str) -> _Metadata:
    boa = root.findtext(".//BOA_QUANTIFICATION_VALUE") or root.findtext(
        ".//L2A_BOA_QUANTIFICATION_VALUE"
    )
    level = "l2a" if boa is not None else "l1c"
    factor = boa if boa is not None else root.findtext(".//QUANTIFICATION_VALUE")
    if factor is None:
        raise RasterError(f"{name} in {store.path} has no QUANTIFICATION_VALUE: it is damaged")
    tag = "BOA_ADD_OFFSET" if level == "l2a" else "RADIO_ADD_OFFSET"
    offsets = {
        _BAND_IDS[int(element.get("band_id", "0"))]: float(element.text or 0)
        for element in root.iter(tag)
    }
    images = [e.text or "" for key in ("IMAGE_FILE", "IMAGE_ID", "IMAGE_FILE_2A", "IMAGE_ID_2A")
              for e in root.iter(key)]  # fmt: skip
    baseline = root.findtext(".//PROCESSING_BASELINE")
    return _Metadata(
        level, float(factor), offsets, float(baseline) if baseline else None,
        tuple(image.strip() for image in images), root.findtext(".//PRODUCT_URI") or store.path.name,
    )  # fmt: skip


def _located(store: Store, metadata: str, read: _Metadata) -> dict[tuple[str, int], str]:
    """Files by band and resolution (0: not said).

    New products list paths from their root, old ones names of files in GRANULE/*/IMG_DATA.
    """
    by_stem: dict[str, list[str]] = {}
    for name in store.names:
        if name.lower().endswith(".jp2"):
            by_stem.setdefault(PurePosixPath(name).stem, []).append(name)
    found: dict[tuple[str, int], str] = {}
    tiles = set()
    for image in read.images:
        band = _IMAGE.search(image)
        if band is None:
            continue
        tiles.add(image[: band.start()].rpartition("/")[2])
        places = by_stem.get(PurePosixPath(image).name, [])
        if not places:
            raise RasterError(
                f"{store.path} lacks {PurePosixPath(image).name}.jp2, which its "
                f"{PurePosixPath(metadata).name} lists: it was cut short, fetch it again"
            )
        found[band[1], int(band[2] or 0)] = places[0]
    if len(tiles) > 1:
        raise RasterError(
            f"{store.path} holds {len(tiles)} tiles: give the images of one, for example "
            f"GRANULE/.../IMG_DATA of {min(tiles)}"
        )
    return found


def _finest(images: dict[tuple[str, int], str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for (band, _), name in sorted(images.items()):
        chosen.setdefault(band, name)
    return chosen
