"""view: a scene on a map, in the browser or as a page to send."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimdiffsr.cli.options import (
    BandsOption,
    BoundsOption,
    RangeOption,
    WindowOption,
    four,
    integers,
    value_pair,
)
from slimdiffsr.cli.show import note

if TYPE_CHECKING:
    from slimdiffsr.view import Viewer

__all__ = ["view"]


def view(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="IN OUT [MORE]...", help="The input, and results of its place."),
    ],
    uncertainty: Annotated[
        str | None, typer.Option(help="Raster of one band: how unsure the result is.")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="Unit of the uncertainty; default: as the rasters tell.")
    ] = None,
    bands: BandsOption = None,
    value_range: RangeOption = "auto",
    bounds: BoundsOption = None,
    window: WindowOption = None,
    html: Annotated[
        Path | None, typer.Option(help="Write one self-contained page of a window instead.")
    ] = None,
    basemap: Annotated[
        str | None, typer.Option(help="Tiles below the scene: an address with {z}, {x} and {y}.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port on this machine; 0 for any that is free.")] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing page.")
    ] = False,
) -> None:
    """Look at a scene: input and results side by side under a swipe, on a map in the browser.

    Serves this machine alone, until Ctrl-C. Nothing is fetched from elsewhere but a --basemap.
    """
    from slimdiffsr.geo.georef import requested_region
    from slimdiffsr.view import Start, open_scene, serve, write_page

    asked = value_pair(value_range)
    with open_scene(paths, uncertainty, bands=integers("--bands", bands), unit=unit) as scene:
        box, pixels = four("--bounds", bounds, float), four("--window", window, int)
        region = None
        if box or pixels:
            region, _ = requested_region(scene.input, box, pixels)
        start = Start(region, None if asked == "auto" else asked, basemap)
        if html is not None:
            print(write_page(scene, html, start, overwrite=overwrite))
            return
        for layer in scene.layers:
            if layer.is_slow:
                note(
                    f"note: {layer.name} has no overviews, so that seeing the whole of it takes "
                    f"long: rio overview --build auto {layer.source.path}"
                )
        with serve(scene, start, port=port) as viewer:
            _tell(viewer, browser)
            try:
                viewer.serve_forever()
            except KeyboardInterrupt:
                note("stopped")


def _tell(viewer: Viewer, browser: bool) -> None:
    print(viewer.url, flush=True)
    if browser and not webbrowser.open(viewer.url):
        note(
            "no browser here: open the address above in one; from another machine, first "
            f"ssh -L {viewer.server_port}:127.0.0.1:{viewer.server_port} to this one"
        )
    note("Ctrl-C stops")
