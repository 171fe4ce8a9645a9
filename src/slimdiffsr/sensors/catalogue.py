"""STAC documents by file or address: items, and the items of collections and catalogues."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from slimdiffsr.errors import RasterError

__all__ = ["StacItem", "items_of", "looks_like_stac", "read_items"]

_TIMEOUT_S = 30.0
_MOST_DEPTH = 4  # catalogue, years, months, tiles


@dataclass(frozen=True, slots=True)
class StacItem:
    """An item, and where it was read: its links are relative to that."""

    document: dict[str, Any]
    place: str  # a path or an address
    inside: bool = False  # a feature of a larger document

    @property
    def id(self) -> str:
        """Its name in the catalogue."""
        return str(self.document.get("id", "item"))

    @property
    def source(self) -> str:
        """What names it alone: of a larger document, "items.json#id"."""
        return f"{self.place}#{self.id}" if self.inside else self.place

    @property
    def properties(self) -> dict[str, Any]:
        """What it says of itself."""
        found = self.document.get("properties")
        return found if isinstance(found, dict) else {}

    @property
    def address(self) -> str:
        """Where the catalogue keeps it: its link to itself, else where it was read."""
        links = self.document.get("links") or []
        own = next((x.get("href") for x in links if x.get("rel") == "self"), None)
        return self.resolve(own) if own else self.place

    def resolve(self, href: str) -> str:
        """A link of the item, made absolute."""
        return _resolve(self.place, href)


def looks_like_stac(src: str) -> bool:
    """Whether a name is that of a JSON document: a .json file, or an address without a raster's."""
    src = src.partition("#")[0]
    path = urlsplit(src).path if "://" in src else src
    if path.lower().endswith((".json", ".geojson")):
        return "://" in src or os.path.exists(src)
    return (
        src.startswith(("http://", "https://"))
        and ("/collections/" in path or "/items/" in path)
        and "." not in path.rpartition("/")[2].replace("v1.", "")
    )


def read_items(src: str) -> list[StacItem]:
    """All items of a document, those of a collection or catalogue by its links.

    "items.json#id" is one of them. Raises RasterError when it cannot be read or is no STAC.
    """
    place, _, wanted = src.partition("#")
    items = list(items_of(_read_json(place), place))
    return [item for item in items if item.id == wanted] if wanted else items


def items_of(
    document: dict[str, Any], place: str, depth: int = 0, inside: bool = False
) -> Iterator[StacItem]:
    """The items in or below a document. Raises RasterError."""
    kind = document.get("type")
    if kind == "Feature" and "assets" in document:
        yield StacItem(document, place, inside)
        return
    if kind == "FeatureCollection":
        for feature in document.get("features") or []:
            yield from items_of(feature, place, depth, inside=True)
        return
    if kind not in ("Collection", "Catalog") or depth > _MOST_DEPTH:
        raise RasterError(f"{place} is no STAC item, collection or catalogue")
    links = [x for x in document.get("links") or [] if isinstance(x, dict) and "href" in x]
    below = [x for x in links if x.get("rel") in ("item", "child")]
    # An API's collection lists no items, but says where they are.
    for link in below or [x for x in links if x.get("rel") == "items"]:
        at = _resolve(place, link["href"])
        yield from items_of(_read_json(at), at, depth + 1)


def _resolve(place: str, href: str) -> str:
    if "://" in href or href.startswith("/vsi") or os.path.isabs(href):
        return href
    if "://" in place:
        return urljoin(place, href)
    return os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(place)), href))


def _read_json(src: str) -> dict[str, Any]:
    try:
        if "://" in src:
            with urllib.request.urlopen(src, timeout=_TIMEOUT_S) as answer:
                document = json.load(answer)
        else:
            document = json.loads(Path(src).read_text(encoding="utf-8"))
    except urllib.error.HTTPError as error:
        raise RasterError(_refused(src, error.code)) from None
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise RasterError(f"{src} cannot be read: {reason}") from None
    except ValueError as error:
        raise RasterError(f"{src} is no JSON, perhaps it was cut short: {error}") from None
    if not isinstance(document, dict):
        raise RasterError(f"{src} is no STAC item, collection or catalogue")
    return document


def _refused(src: str, code: int) -> str:
    host = urlsplit(src).netloc
    if code in (401, 403):
        return (
            f"{host} refuses {src} without credentials (status {code}): give a signed address, or "
            "--sign planetary-computer for that catalogue"
        )
    return f"{src} cannot be read: {host} answers with status {code}"
