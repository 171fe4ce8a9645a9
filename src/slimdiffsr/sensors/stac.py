"""A STAC item as a product: which assets, where GDAL finds them, what the catalogue says of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from slimdiffsr.errors import BandError, ConfigError, RasterError
from slimdiffsr.sensors.catalogue import StacItem
from slimdiffsr.sensors.composite import BandFile, compose
from slimdiffsr.sensors.product import BandFacts, Product
from slimdiffsr.sensors.recognise import recognise
from slimdiffsr.sensors.tables import RGB, Sensor

__all__ = ["Signing", "gdal_path", "signer", "stac_product"]

Signing = Literal["none", "planetary-computer"]

_STORES = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/", "abfs": "/vsiadls/"}
_NO_PICTURES = ("thumbnail", "overview", "metadata")


@dataclass(frozen=True, slots=True)
class _Asset:
    key: str
    href: str
    bands: tuple[dict[str, Any], ...]  # as eo:bands, or STAC 1.1's bands
    numbers: tuple[dict[str, Any], ...]  # as raster:bands
    gsd: float
    is_tiff: bool


def signer(kind: Signing) -> Callable[[str], str]:
    """What makes an address readable. Raises ConfigError for an unknown kind."""
    if kind == "none":
        return lambda href: href
    if kind == "planetary-computer":
        import planetary_computer

        return lambda href: str(planetary_computer.sign_url(href))
    raise ConfigError(f"--sign must be none or planetary-computer, got {kind!r}")


def gdal_path(href: str) -> str:
    """What GDAL calls an address: /vsicurl/https://..., /vsis3/bucket/key; a path stays."""
    parts = urlsplit(href)
    if parts.scheme in ("http", "https"):
        return f"/vsicurl/{href}"
    if parts.scheme in _STORES:
        return f"{_STORES[parts.scheme]}{parts.netloc}{parts.path}"
    return href.removeprefix("file://")


def stac_product(
    item: StacItem,
    *,
    assets: Sequence[str] = (),
    all_bands: bool = False,
    sign: Signing = "none",
) -> Product:
    """The product that an item describes.

    assets: keys or common names, in the order wanted; default: red, green and blue, with
    ``all_bands`` every band of the sensor. Raises BandError for assets that are not there,
    RasterError for what cannot be opened.
    """
    words = (item.id, str(item.document.get("collection") or ""))
    draft = Product(path="", name=item.place, dtype="", bands=(), words=words)
    sensor, _ = recognise(draft)
    found = _assets(item)
    chosen = _choose(item, found, sensor, assets, all_bands)
    make = signer(sign)
    files = [
        BandFile(gdal_path(make(item.resolve(asset.href))), facts, number)
        for asset, number, facts in chosen
    ]
    made = compose(item.id, files)
    declared = any(facts.scale is not None or facts.offset is not None for facts in made.bands)
    return Product(
        path=made.vrt,
        name=item.source,
        dtype=made.dtype,
        bands=made.bands,
        words=words,
        coarser=made.coarser,
        files=made.files,
        declared_by="raster:bands of the item" if declared else "",
        baseline=_baseline(item.properties),
        offset_applied=_applied(item.properties),
        sensor="" if sensor is None else sensor.name,
        properties=item.properties,
        links=(item.address,),
        remarks=_visual_remark(item, chosen),
    )


_Chosen = tuple[_Asset, int, BandFacts]


def _assets(item: StacItem) -> list[_Asset]:
    documents = item.document.get("assets")
    if not isinstance(documents, dict):
        raise RasterError(f"{item.place} has no assets: it is no STAC item")
    found = []
    for key, asset in documents.items():
        roles = asset.get("roles") or []
        if not asset.get("href") or set(roles) & set(_NO_PICTURES):
            continue
        bands = tuple(asset.get("eo:bands") or asset.get("bands") or ())
        numbers = tuple(asset.get("raster:bands") or asset.get("bands") or ({},))
        own = {k: asset[k] for k in ("raster:scale", "raster:offset", "nodata") if k in asset}
        gsd = asset.get("gsd") or numbers[0].get("spatial_resolution") or _pixel(asset)
        kind = str(asset.get("type") or "")
        tiff = "tiff" in kind or str(asset["href"]).split("?")[0].lower().endswith(
            (".tif", ".tiff")
        )
        merged = tuple({**own, **one} for one in numbers)
        found.append(_Asset(key, str(asset["href"]), bands, merged, float(gsd or 0), tiff))
    return found


def _pixel(asset: dict[str, Any]) -> float:
    transform = asset.get("proj:transform")
    return abs(float(transform[0])) if transform else 0.0


def _choose(
    item: StacItem,
    found: list[_Asset],
    sensor: Sensor | None,
    asked: Sequence[str],
    all_bands: bool,
) -> list[_Chosen]:
    by_role: dict[str, list[_Chosen]] = {}
    by_key: dict[str, list[_Chosen]] = {}
    for asset in found:
        for number in range(1, max(len(asset.bands), 1) + 1):
            facts = _facts(asset, number, sensor)
            by_key.setdefault(asset.key, []).append((asset, number, facts))
            if facts.role:
                by_role.setdefault(facts.role, []).append((asset, number, facts))
    if asked:
        return [one for name in asked for one in _named(item, name, by_key, by_role)]
    wanted: Sequence[str] = RGB
    if all_bands and sensor is not None:
        wanted = [b.role for b in sensor.bands if b.role in by_role and b.role not in _FAR]
    if set(wanted) <= set(by_role):
        return [_best(by_role[role]) for role in wanted]
    if "visual" in by_key:
        return by_key["visual"] if len(by_key["visual"]) > 1 else _three(by_key["visual"][0])
    missing = ", ".join(sorted(set(RGB) - set(by_role)))
    raise BandError(
        f"{item.place} has no asset for {missing}: choose with --assets among "
        f"{', '.join(sorted(by_key))}"
    )


_FAR = ("cirrus", "lwir11", "lwir12", "pan")  # other pixels, or nothing of the ground


def _three(visual: _Chosen) -> list[_Chosen]:
    asset, _, _ = visual
    return [(asset, k, BandFacts(name=role, role=role)) for k, role in enumerate(RGB, 1)]


def _named(
    item: StacItem, name: str, by_key: dict[str, list[_Chosen]], by_role: dict[str, list[_Chosen]]
) -> list[_Chosen]:
    if name in by_key:
        whole = by_key[name]
        return _three(whole[0]) if name == "visual" and len(whole) == 1 else whole
    if name in by_role:
        return [_best(by_role[name])]
    raise BandError(f"{item.place} has no asset {name!r}: there are {', '.join(sorted(by_key))}")


def _best(candidates: list[_Chosen]) -> _Chosen:
    """Of one band in several files the finest, and of those the GeoTIFF; never the 8-bit picture."""
    plain = [one for one in candidates if one[0].key != "visual"] or candidates
    return min(plain, key=lambda one: (one[0].gsd or 1e9, not one[0].is_tiff))


def _facts(asset: _Asset, number: int, sensor: Sensor | None) -> BandFacts:
    band = asset.bands[number - 1] if number <= len(asset.bands) else {}
    numbers = asset.numbers[number - 1] if number <= len(asset.numbers) else asset.numbers[0]
    name = str(band.get("name") or asset.key)
    common = band.get("common_name") or band.get("eo:common_name") or ""
    # Names first: catalogues give several bands one common name, such as rededge.
    role = (sensor.role_of(name) or sensor.role_of(asset.key)) if sensor is not None else None
    scale = numbers.get("scale", numbers.get("raster:scale"))
    offset = numbers.get("offset", numbers.get("raster:offset"))
    nodata = numbers.get("nodata")
    return BandFacts(
        name=name,
        role=role or str(common),
        scale=None if scale is None else float(scale),
        offset=None if offset is None else float(offset),
        nodata=float(nodata) if isinstance(nodata, (int, float)) else None,
    )


def _baseline(properties: dict[str, Any]) -> float | None:
    for key in ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version"):
        found = re.fullmatch(r"\D*(\d{1,2}\.\d{1,2})", str(properties.get(key, "")))
        if found:
            return float(found[1])
    return None


def _applied(properties: dict[str, Any]) -> bool | None:
    for key in ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied"):
        if isinstance(properties.get(key), bool):
            return bool(properties[key])
    return None


def _visual_remark(item: StacItem, chosen: list[_Chosen]) -> tuple[str, ...]:
    if all(asset.key == "visual" for asset, _, _ in chosen):
        return (f"{item.id} was read as its asset visual, an 8-bit picture.",)
    return ()
