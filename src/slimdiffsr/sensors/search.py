"""Scenes by place and date: a search in a STAC API, and the items of a collection that fit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimdiffsr.errors import ConfigError, OutputError, RasterError
from slimdiffsr.sensors.catalogue import StacItem

__all__ = ["Wanted", "matching", "save_items", "search_items"]

Box = tuple[float, float, float, float]  # west, south, east, north, in degrees


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which scenes; checks itself. Raises ConfigError.

    datetime: a day or moment, or two with a slash between, "2023-06-01/2023-08-31"; ".." is open.
    """

    bbox: Box | None = None
    datetime: str | None = None
    most_cloud_percent: float | None = None
    limit: int = 100

    def __post_init__(self) -> None:
        if self.bbox is not None:
            west, south, east, north = self.bbox
            if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
                raise ConfigError(
                    "--bbox must be west south east north in degrees, with west < east and south < "
                    f"north, got {' '.join(f'{x:g}' for x in self.bbox)}"
                )
        if self.limit < 1:
            raise ConfigError(f"--limit must be at least 1, got {self.limit}")
        _ = self.span

    @property
    def span(self) -> tuple[str, str]:
        """First and last moment as ISO strings that sort; "" where open."""
        if self.datetime is None:
            return "", ""
        first, slash, last = self.datetime.partition("/")
        both = (first, last if slash else first)
        for text in both:
            if text not in ("", "..") and not re.fullmatch(r"\d{4}(-\d\d){0,2}(T[\d:.]+Z?)?", text):
                raise ConfigError(
                    "--datetime must be a date as 2023-06-01 or two with a slash between, got "
                    f"{self.datetime!r}"
                )
        start, end = ("" if text == ".." else text for text in both)
        return start, f"{end}~" if end else ""  # "~" sorts after all that begins with that day


def matching(items: Iterable[StacItem], wanted: Wanted) -> list[StacItem]:
    """The items in a box, a span of time and under a share of clouds."""
    return [item for item in items if _fits(item, wanted)][: wanted.limit]


def _fits(item: StacItem, wanted: Wanted) -> bool:
    box = item.document.get("bbox")
    if wanted.bbox is not None and box:
        west, south, east, north = box if len(box) == 4 else (*box[:2], *box[3:5])
        if west > wanted.bbox[2] or east < wanted.bbox[0]:
            return False
        if south > wanted.bbox[3] or north < wanted.bbox[1]:
            return False
    moment = str(item.properties.get("datetime") or item.properties.get("start_datetime") or "")
    start, end = wanted.span
    if (start and moment < start) or (end and moment > end):
        return False
    cloud = item.properties.get("eo:cloud_cover")
    most = wanted.most_cloud_percent
    return most is None or cloud is None or float(cloud) <= most


def search_items(api: str, collections: list[str], wanted: Wanted) -> list[dict[str, Any]]:
    """What an API finds, the clearest first. Raises RasterError when it is nothing, or no answer."""
    from pystac_client import Client
    from pystac_client.exceptions import APIError
    from pystac_client.warnings import PystacClientWarning

    query: dict[str, Any] = {"collections": collections, "max_items": wanted.limit}
    if wanted.bbox is not None:
        query["bbox"] = list(wanted.bbox)
    if wanted.datetime is not None:
        query["datetime"] = wanted.datetime
    if wanted.most_cloud_percent is not None:
        query["query"] = {"eo:cloud_cover": {"lte": wanted.most_cloud_percent}}
    try:
        found = list(Client.open(api).search(**query).items_as_dicts())
    except (
        APIError,
        PystacClientWarning,
        OSError,
        NotImplementedError,
        ValueError,
        KeyError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RasterError(f"{api} does not answer as a STAC API: {reason}") from None
    if not found:
        where = "" if wanted.bbox is None else f" in {' '.join(f'{x:g}' for x in wanted.bbox)}"
        when = "" if wanted.datetime is None else f" for {wanted.datetime}"
        raise RasterError(f"{', '.join(collections)} of {api} has no scenes{where}{when}")
    return sorted(found, key=lambda item: item["properties"].get("eo:cloud_cover") or 0)


def save_items(items: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Each as a file of its own, ready for ``upscale``. Raises OutputError."""
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for item in items:
            name = re.sub(r"[^\w.-]", "_", str(item["id"]))
            paths.append(folder / f"{name}.json")
            paths[-1].write_text(json.dumps(item, indent=1), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write items to {folder}: {error.strerror}") from None
    return paths
