"""Landsat Collection 2 folders and tars: the bands by their names, the factors by the MTL file."""

from __future__ import annotations

import json
import math
import re
from pathlib import PurePosixPath

from slimdiffsr.errors import RasterError
from slimdiffsr.sensors.composite import BandFile, compose
from slimdiffsr.sensors.presets import SENSORS
from slimdiffsr.sensors.product import BandFacts, Product
from slimdiffsr.sensors.store import Store, read_xml
from slimdiffsr.sensors.tables import RGB

__all__ = ["is_landsat", "landsat_product"]

_BAND = re.compile(r"(L[TECO]0[45789]_L(1|2)\w\w_.*?)_(?:SR_)?B(\d{1,2})\.TIF$", re.IGNORECASE)
_REFLECTIVE = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")


def is_landsat(store: Store) -> bool:
    """Whether a folder or tar holds bands of a Landsat Collection 2 scene."""
    return any(_BAND.search(name) for name in store.names)


def landsat_product(store: Store, all_bands: bool) -> Product:
    """Red, green, blue of a scene, or with ``all_bands`` all reflective bands of 30 m.

    Raises RasterError when bands or the MTL file are missing, or the folder holds several scenes.
    """
    found = {name: match for name in store.names if (match := _BAND.search(name))}
    scenes = sorted({match[1].rpartition("/")[2] for match in found.values()})
    if len(scenes) > 1:
        raise RasterError(
            f"{store.path} holds {len(scenes)} scenes, {scenes[0]} among them: give each a folder "
            "of its own"
        )
    (scene,) = scenes
    family = "8-9" if scene[3] in "89" else "4-7"
    level = f"c2l{next(iter(found.values()))[2]}"
    sensor = SENSORS[f"landsat-{family}-{level}"]
    factors = _factors(store, level)
    by_role = {sensor.role_of(f"B{match[3]}"): (name, match[3]) for name, match in found.items()}
    files = []
    for role in _REFLECTIVE if all_bands else RGB:
        if role not in by_role:
            if role in RGB:
                raise RasterError(f"{store.path} lacks the {role} band of {scene}")
            continue
        name, number = by_role[role]
        scale, offset = factors.get(int(number), (sensor.scale, sensor.offset))
        label = f"SR_B{number}" if level == "c2l2" else f"B{number}"
        facts = BandFacts(name=label, role=role, scale=scale, offset=offset, nodata=sensor.nodata)
        files.append(BandFile(store.gdal(name), facts))
    made = compose(str(store.path), files)
    said = "REFLECTANCE_MULT and REFLECTANCE_ADD of the MTL file"
    return Product(
        path=made.vrt, name=str(store.path), dtype=made.dtype, bands=made.bands,
        coarser=made.coarser,
        files=made.files, words=(scene,),
        sensor=sensor.name, binding=True,
        declared_by=said if factors else "the guide of Collection 2, as there is no MTL file",
    )  # fmt: skip


def _factors(store: Store, level: str) -> dict[int, tuple[float, float]]:
    """Scale and offset by band number, from MTL.txt, .json or .xml; empty without one.

    Above the atmosphere they are divided by the sine of the sun's elevation.
    """
    values = _metadata(store)
    group = (
        "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"
        if level == "c2l2"
        else "LEVEL1_RADIOMETRIC_RESCALING"
    )
    factors = {}
    elevation = values.get(("IMAGE_ATTRIBUTES", "SUN_ELEVATION"))
    by = math.sin(math.radians(float(elevation))) if level == "c2l1" and elevation else 1.0
    for number in range(1, 10):
        scale = values.get((group, f"REFLECTANCE_MULT_BAND_{number}"))
        offset = values.get((group, f"REFLECTANCE_ADD_BAND_{number}"))
        if scale is not None and offset is not None:
            factors[number] = float(scale) / by, float(offset) / by
    if level == "c2l1" and not factors:
        raise RasterError(f"{store.path} has no MTL file, which holds the factors of its bands")
    return factors


def _metadata(store: Store) -> dict[tuple[str, str], str]:
    """Values by group and key; the three forms of the file say the same."""
    names = {PurePosixPath(name).suffix.lower(): name for name in store.names if "_MTL." in name}
    values: dict[tuple[str, str], str] = {}
    if ".json" in names:
        try:
            groups = json.loads(store.read(names[".json"]))["LANDSAT_METADATA_FILE"]
            pairs = [(g, k, v) for g, inner in groups.items() for k, v in inner.items()]
        except (ValueError, KeyError, AttributeError) as error:
            raise RasterError(f"{names['.json']} is damaged: {error}") from None
        values = {(group, key): str(value) for group, key, value in pairs}
    elif ".txt" in names:
        group = ""
        for line in store.read(names[".txt"]).decode("utf-8", "replace").splitlines():
            key, _, value = (part.strip() for part in line.partition("="))
            if key == "GROUP":
                group = value
            else:
                values[group, key] = value.strip('"')
    elif ".xml" in names:
        for inner in read_xml(store, names[".xml"]):
            values |= {(inner.tag, element.tag): element.text or "" for element in inner}
    return values
