"""What sensors measured, on the command line: options of ``upscale``, and two commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from slimdiffsr.cli.options import JsonOption, four
from slimdiffsr.cli.show import note, report
from slimdiffsr.errors import ConfigError, RasterError, TilingError

if TYPE_CHECKING:
    from slimdiffsr.geo import KnownRaster, SceneOptions
    from slimdiffsr.sensors import SensorOptions

__all__ = [
    "AssetsOption",
    "BboxOption",
    "DatetimeOption",
    "NodataOption",
    "OffsetOption",
    "ResolutionOption",
    "ScaleFactorOption",
    "SensorOption",
    "SignOption",
    "bands_beside",
    "expand_items",
    "nodata_of",
    "place_of",
    "resolution_of",
    "search",
    "sensor_options",
    "sensors",
    "with_shared_range",
]

SensorOption = Annotated[
    str, typer.Option(help="What made it: auto, a name that slimdiffsr sensors lists, or a TOML.")
]
OffsetOption = Annotated[
    float | None, typer.Option(help="Reflectance = scale factor x stored + offset: -0.1.")
]
ScaleFactorOption = Annotated[float | None, typer.Option(help="See --offset: 0.0001.")]
NodataOption = Annotated[
    str | None, typer.Option(metavar="VALUE|none", help="Of empty pixels, whatever is declared.")
]
AssetsOption = Annotated[
    str | None, typer.Option(help="Of STAC items, by common name or key: red,green,blue.")
]
SignOption = Annotated[str, typer.Option(help="Links of STAC items: none or planetary-computer.")]
BboxOption = Annotated[
    str | None, typer.Option(help="Only this part: 'west south east north' in degrees.")
]
DatetimeOption = Annotated[
    str | None, typer.Option(help="Only items of this time: 2023-06-01/2023-08-31.")
]
ResolutionOption = Annotated[
    str | None, typer.Option(help="Side of output pixels, in units of the CRS, or as 2.5m.")
]


def sensor_options(
    sensor: str, offset: float | None, scale_factor: float | None, assets: str | None, sign: str
) -> SensorOptions:
    """The options as the library takes them. Raises ConfigError."""
    from slimdiffsr.sensors import SensorOptions, find_sensor

    if sensor != "auto":
        find_sensor(sensor)
    if sign not in ("none", "planetary-computer"):
        raise ConfigError(f"--sign must be none or planetary-computer, got {sign!r}")
    names = tuple(name.strip() for name in (assets or "").split(",") if name.strip())
    return SensorOptions(
        sensor=sensor, offset=offset, scale_factor=scale_factor, assets=names, sign=cast(Any, sign)
    )


def bands_beside(text: str | None) -> Any:  # noqa: ANN401  one of three literals
    """Whether the other bands are written, and how. Raises ConfigError."""
    if text not in (None, "bicubic", "network"):
        raise ConfigError(f"--all-bands must be bicubic or network, got {text!r}")
    return "network" if text == "network" else text is not None


def with_shared_range(
    sources: list[str], options: SceneOptions, of_sensor: SensorOptions
) -> dict[str, KnownRaster]:
    """What is known of each input, with one range for all. Raises RangeError."""
    from slimdiffsr.sensors import known_raster
    from slimdiffsr.sensors.shared import share_range

    known = [known_raster(x, of_sensor, all_bands=bool(options.all_bands)) for x in sources]
    return dict(zip(sources, share_range(known, options.bands), strict=True))


def nodata_of(text: str | None) -> Any:  # noqa: ANN401  a number or a word
    """The value of empty pixels: a number, "none", or as declared."""
    if text is None:
        return "declared"
    if text == "none":
        return "none"
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--nodata must be a number or none, got {text!r}") from None


def resolution_of(text: str | None) -> dict[str, Any]:
    """Options of the scene for 2.5 or 2.5m."""
    if text is None:
        return {}
    number = text.strip().lower().removesuffix("m").strip()
    unit = "m" if text.strip().lower().endswith("m") else "crs"
    try:
        return {"resolution": float(number), "resolution_unit": unit}
    except ValueError:
        raise ConfigError(
            f"--resolution must be a number, or metres as 2.5m, got {text!r}"
        ) from None


def place_of(bounds: str | None, bounds_crs: str | None, bbox: str | None) -> dict[str, Any]:
    """Options of the scene for --bounds with --bounds-crs, or for --bbox."""
    if bbox is None:
        return {"bounds": four("--bounds", bounds, float), "bounds_crs": bounds_crs}
    if bounds is not None or bounds_crs is not None:
        raise TilingError("give either --bbox, in degrees, or --bounds, got both")
    return {"bounds": four("--bbox", bbox, float), "bounds_crs": "EPSG:4326"}


def expand_items(sources: list[str], bbox: str | None, datetime: str | None) -> list[str]:
    """Inputs with each collection and catalogue replaced by its items that fit.

    Raises RasterError when none does.
    """
    from slimdiffsr.sensors.catalogue import looks_like_stac, read_items
    from slimdiffsr.sensors.search import Wanted, matching

    wanted = Wanted(bbox=four("--bbox", bbox, float), datetime=datetime, limit=1_000_000)
    expanded = []
    for source in sources:
        if not looks_like_stac(source):
            expanded.append(source)
            continue
        items = read_items(source)
        fitting = matching(items, wanted)
        if not fitting:
            when = "" if datetime is None else f" for {datetime}"
            where = "" if bbox is None else f" in {bbox}"
            raise RasterError(f"none of the {len(items)} items of {source} fits{when}{where}")
        expanded += [item.source for item in fitting]
    return expanded


def sensors(
    name: Annotated[str | None, typer.Argument(help="One sensor, to see its bands.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the sensors known by name, or say what is known of one."""
    from slimdiffsr.cli.show import plain
    from slimdiffsr.sensors import SENSORS, find_sensor

    if name is None:
        return report({key: sensor.title for key, sensor in SENSORS.items()}, as_json)
    facts = plain(find_sensor(name))
    if not as_json:
        facts["bands"] = [
            f"{band['role']}: {', '.join(band['names'])} ({band['pixel_m']:g} m)"
            for band in facts["bands"]
        ]
    return report(facts, as_json)


def search(
    api: Annotated[str, typer.Argument(help="Address of a STAC API.")],
    out: Annotated[Path, typer.Argument(help="Folder for the items found, one file each.")],
    collection: Annotated[list[str], typer.Option(help="As sentinel-2-l2a; repeat for more.")],
    bbox: BboxOption = None,
    datetime: DatetimeOption = None,
    cloud: Annotated[float | None, typer.Option(help="At most so many percent clouds.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many items.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Find scenes by place and date in a STAC API; upscale takes the items that it writes."""
    from slimdiffsr.sensors.search import Wanted, save_items, search_items

    wanted = Wanted(
        bbox=four("--bbox", bbox, float), datetime=datetime, most_cloud_percent=cloud, limit=limit
    )
    items = search_items(api, collection, wanted)
    paths = save_items(items, out)
    if not as_json:
        for item, path in zip(items, paths, strict=True):
            told = item["properties"]
            note(f"{told.get('datetime')} {told.get('eo:cloud_cover', '?')} % clouds: {path}")
    return report({item["id"]: str(path) for item, path in zip(items, paths, strict=True)}, as_json)
