"""xarray in, xarray out: lazily with dask, with CRS and coordinates, equal to the way by files.

``import slimdiffsr.xarray`` also gives arrays ``.slimdiffsr.upscale(...)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from fractions import Fraction
from functools import cache
from typing import Any, cast
from xml.etree import ElementTree as Xml

import dask.array
import numpy as np
import rioxarray  # noqa: F401  gives arrays their .rio
import xarray
from affine import Affine
from dask.delayed import delayed
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from slimdiffsr import geo, sensors
from slimdiffsr.errors import ConfigError, RangeError, RasterError
from slimdiffsr.geo.environment import gdal
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.job import Job, decide
from slimdiffsr.geo.pipeline import compute_chunk
from slimdiffsr.geo.raster import open_source
from slimdiffsr.geo.reduce import reduced
from slimdiffsr.geo.values import DTYPES
from slimdiffsr.geo.vrt import VRT_TYPES
from slimdiffsr.upscale import Upscaler

__all__ = ["SlimDiffSRAccessor", "upscale"]

_SAMPLES = 1024  # along a side, where values have to be looked at
_REACH_LR_PX = 64  # beyond the tiles, more than any rule of colour or detail reads


def upscale(
    data: xarray.DataArray,
    model: str | Upscaler = "tiny-x4",
    options: geo.SceneOptions | None = None,
    *,
    sensor: sensors.SensorOptions | None = None,
) -> xarray.DataArray:
    """Enlarge an array (..., y, x) or (..., band, y, x), where it lies on the map.

    A dimension called band holds bands, its labels their names; all others, such as time, are
    scenes of their own. A dask array stays one: each of its blocks becomes a block of the result,
    made when it is asked for, and equal to what a file of the same scene would become. Then a range
    cannot be estimated: give ``options.value_range`` or ``sensor`` unless the array is uint8.

    Raises RasterError for arrays of another kind, RangeError and ConfigError for options that do
    not fit.
    """
    options = options or geo.SceneOptions()
    if options.bounds is not None or options.window is not None:
        raise ConfigError("bounds and window are for files: select from the array instead")
    upscaler = _upscaler(model) if isinstance(model, str) else model
    scenes, band = _as_scenes(data)
    if scenes.size == 0:
        raise RasterError(f"the array is empty: its shape is {data.shape}")
    plan = _plan(scenes, band is not None, upscaler, options, sensor)
    results = [plan.enlarge(scenes.data[k]) for k in range(scenes.shape[0])]
    return _labelled(data, _stack(results), plan, band)


@xarray.register_dataarray_accessor("slimdiffsr")
class SlimDiffSRAccessor:
    """``array.slimdiffsr.upscale(...)``: see ``upscale``."""

    def __init__(self, data: xarray.DataArray) -> None:
        self._data = data

    def upscale(
        self,
        model: str | Upscaler = "tiny-x4",
        options: geo.SceneOptions | None = None,
        *,
        sensor: sensors.SensorOptions | None = None,
    ) -> xarray.DataArray:
        """See ``upscale``."""
        return upscale(self._data, model, options, sensor=sensor)


@cache
def _upscaler(model: str) -> Upscaler:
    return Upscaler.from_pretrained(model)


def _as_scenes(data: xarray.DataArray) -> tuple[xarray.DataArray, str | None]:
    """(scene, band, y, x), and the name of the band dimension if there is one."""
    if not isinstance(data, xarray.DataArray):
        kind = f"{type(data).__module__}.{type(data).__name__}"
        raise RasterError(
            f"expected an xarray.DataArray, got {kind}: of a Dataset give one variable"
        )
    try:
        x, y = data.rio.x_dim, data.rio.y_dim
    except Exception:
        raise RasterError(f"the array has no dimensions y and x, but {data.dims}") from None
    if str(data.dtype) not in DTYPES:
        raise RasterError(f"the array holds {data.dtype} values: convert it to one of {DTYPES}")
    band = "band" if "band" in data.dims else None
    whole = data if band is not None else data.expand_dims("band")
    others = [name for name in whole.dims if name not in ("band", y, x)]
    ordered = whole.transpose(*others, "band", y, x)
    if not others:
        return ordered.expand_dims("scene_"), band
    one = ordered.stack(scene_=others, create_index=False)
    return one.transpose("scene_", "band", y, x), band


def _stack(results: Sequence[Any]) -> Any:  # noqa: ANN401  numpy or dask
    return (dask.array if isinstance(results[0], dask.array.Array) else np).stack(results)


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    """What all scenes of an array have in common, decided before a pixel is made."""

    upscaler: Upscaler
    options: geo.SceneOptions
    known: geo.KnownRaster
    names: tuple[str, ...]
    nodata: float | None
    transform: Affine
    ratio: Fraction  # of the output's pixels to the network's
    dtype: np.dtype[Any]
    written: tuple[int, ...]  # bands, from 1
    nodata_out: float | None
    transform_out: Affine | None

    def enlarge(self, scene: Any) -> Any:  # noqa: ANN401  numpy or dask
        """(band, y, x) -> (band, Y, X) of the same kind."""
        whole = Region(0, 0, scene.shape[2], scene.shape[1])
        if not isinstance(scene, dask.array.Array):
            return self.make(np.asarray(scene), whole, whole, whole)
        rows, cols = (_places(sizes) for sizes in scene.chunks[1:])
        windows = [[Region(col, row, width, height) for col, width in cols] for row, height in rows]
        blocks = [[[self._block(scene, whole, window) for window in row] for row in windows]]
        return dask.array.block(cast(Any, blocks))

    def _block(self, scene: dask.array.Array, whole: Region, window: Region) -> dask.array.Array:
        spec = self.upscaler.spec
        held = window.grown(spec.tile_hr_px // spec.scale + _REACH_LR_PX).clipped(whole)
        part = scene[:, held.row : held.row_end, held.col : held.col_end]
        made = delayed(self.make, pure=True)(part, held, window, whole)
        out = reduced(window.times(spec.scale), self.ratio)
        shape = (len(self.written), out.height, out.width)
        block: dask.array.Array = dask.array.from_delayed(made, shape, dtype=self.dtype)
        return block

    def make(
        self, values: NDArray[Any], held: Region, window: Region, whole: Region
    ) -> NDArray[Any]:
        """The result for a window of a scene, of which ``values`` are the part that is needed."""
        asked = dataclasses.replace(
            self.options, window=(window.col, window.row, window.width, window.height)
        )
        profile = {
            "driver": "GTiff", "count": len(values), "height": held.height, "width": held.width,
            "dtype": values.dtype, "transform": Affine.scale(2), "photometric": "MINISBLACK",
        }  # fmt: skip
        with gdal(), MemoryFile() as memory:  # type: ignore[no-untyped-call]
            with memory.open(**profile) as dataset:
                dataset.write(values)
            text = _vrt(whole, self.names, values.dtype, self.nodata, self.transform)
            known = _on_vrt(self.known, _filled(text, memory.name, held))
            with open_source(known, self.options.nodata) as source:
                return _pixels(decide(source, self.upscaler.spec, asked), self.upscaler)


def _plan(
    scenes: xarray.DataArray,
    has_bands: bool,
    upscaler: Upscaler,
    options: geo.SceneOptions,
    sensor: sensors.SensorOptions | None,
) -> _Plan:
    declared = scenes.rio.nodata
    nodata = None if declared is None else float(declared)
    if options.nodata == "declared" and nodata is None:
        options = dataclasses.replace(options, nodata="none")
    names = tuple(map(str, scenes["band"].values)) if has_bands and "band" in scenes.coords else ()
    names = names or ("",) * scenes.shape[1]
    product = sensors.Product(
        path="", name="the array", dtype=str(scenes.dtype), words=_words(scenes),
        bands=tuple(sensors.BandFacts(name=name, nodata=nodata) for name in names),
    )  # fmt: skip
    known = sensors.know(product, sensor, look=lambda known: _look(scenes, known))
    lazy = isinstance(scenes.data, dask.array.Array)
    if lazy and options.value_range == "auto" and not known.meanings and scenes.dtype != np.uint8:
        raise RangeError(
            f"the range of {scenes.dtype} values cannot be estimated without loading them: give "
            "value_range, or a sensor"
        )
    whole = Region(0, 0, scenes.shape[3], scenes.shape[2])
    transform = scenes.rio.transform()
    text = _vrt(whole, names, scenes.dtype, nodata, transform)
    with (
        gdal(),
        open_source(_on_vrt(known, Xml.tostring(text, "unicode")), options.nodata) as source,
    ):
        job = decide(source, upscaler.spec, options)
        return _Plan(
            upscaler=upscaler, options=options, known=known, names=names, nodata=nodata,
            transform=transform, ratio=job.ratio, dtype=job.header.dtype,
            written=job.choice.written, nodata_out=job.header.nodata,
            transform_out=job.header.transform,
        )  # fmt: skip


def _places(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Starts and sizes of blocks."""
    return list(zip(np.cumsum([0, *sizes[:-1]]).tolist(), sizes, strict=True))


def _words(scenes: xarray.DataArray) -> tuple[str, ...]:
    """What may tell the sensor: names, ids and collections that catalogues' loaders leave."""
    told = (scenes.name, *(scenes.attrs.get(key) for key in ("id", "collection", "product")))
    coords = (scenes.coords[key].values for key in ("id", "collection") if key in scenes.coords)
    return tuple(str(word) for word in (*told, *(x.flat[0] for x in coords)) if word is not None)


def _look(scenes: xarray.DataArray, known: geo.KnownRaster) -> NDArray[Any]:
    """Measured values of the visible bands, some from all over the scenes."""
    bands = [band - 1 for band in known.rgb or (1,)]
    step_y, step_x = (max(1, size // _SAMPLES) for size in scenes.shape[-2:])
    values = np.asarray(scenes.data[:, bands, ::step_y, ::step_x])
    measured = np.isfinite(values)
    for special in (*known.special, known.nodata, scenes.rio.nodata):
        if special is not None:
            measured &= values != special
    taken: NDArray[Any] = values[measured]
    return taken


def _vrt(
    whole: Region,
    names: Sequence[str],
    dtype: np.dtype[Any],
    nodata: float | None,
    transform: Affine,
) -> Xml.Element:
    """A raster of the whole scene's size, with nothing in it yet."""
    size = {"rasterXSize": str(whole.width), "rasterYSize": str(whole.height)}
    root = Xml.Element("VRTDataset", size)
    Xml.SubElement(root, "GeoTransform").text = ", ".join(
        map(repr, map(float, transform.to_gdal()))
    )
    for number, name in enumerate(names, 1):
        kind = VRT_TYPES[np.dtype(dtype).name]
        band = Xml.SubElement(root, "VRTRasterBand", dataType=kind, band=str(number))
        if name:
            Xml.SubElement(band, "Description").text = name
        if nodata is not None:
            Xml.SubElement(band, "NoDataValue").text = repr(nodata)
        Xml.SubElement(band, "ColorInterp").text = "Gray"
    return root


def _filled(root: Xml.Element, path: str, held: Region) -> str:
    """The raster with the part of the scene that is held, in its place."""
    for band in root.iter("VRTRasterBand"):
        source = Xml.SubElement(band, "SimpleSource")
        Xml.SubElement(source, "SourceFilename", relativeToVRT="0").text = path
        Xml.SubElement(source, "SourceBand").text = band.get("band")
        inside = {"xSize": str(held.width), "ySize": str(held.height)}
        Xml.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **inside})
        Xml.SubElement(source, "DstRect", {"xOff": str(held.col), "yOff": str(held.row), **inside})
    return Xml.tostring(root, encoding="unicode")


def _on_vrt(known: geo.KnownRaster, text: str) -> geo.KnownRaster:
    return dataclasses.replace(known, path=text, name="the array")


def _pixels(job: Job, upscaler: Upscaler) -> NDArray[Any]:
    """(band, y, x): all chunks of a job."""
    whole = job.header.region_hr
    result = np.empty((len(job.choice.written), whole.height, whole.width), job.header.dtype)
    network = upscaler.network(job.options.colour)
    for chunk_hr in job.chunks():
        rows, cols = job.written(chunk_hr).slices(whole)
        for stripe in compute_chunk(job, chunk_hr, network):
            top = rows.start + stripe.row_hr_px
            result[stripe.band - 1, top : top + len(stripe.pixels), cols] = stripe.pixels
    return result


def _labelled(
    data: xarray.DataArray,
    values: Any,  # noqa: ANN401  numpy or dask
    plan: _Plan,
    band: str | None,
) -> xarray.DataArray:
    """The result with the dimensions, coordinates, attributes and CRS of ``data``."""
    x, y = data.rio.x_dim, data.rio.y_dim
    kept = [k - 1 for k in plan.written]
    like = data if band is not None else data.expand_dims("band")
    others = [name for name in like.dims if name not in ("band", y, x)]
    shape = (*(like.sizes[name] for name in others), *values.shape[1:])
    dims: list[Hashable] = [*others, "band", y, x]
    coords = {
        name: coord
        for name, coord in like.isel(band=kept).coords.items()
        if not {x, y} & set(coord.dims)
    }
    result = xarray.DataArray(
        values.reshape(shape), dims=dims, coords=coords, name=data.name, attrs=data.attrs
    )
    if plan.transform_out is not None and x in data.coords and y in data.coords:
        a, _, c, _, e, f = plan.transform_out[:6]
        for name, step, start in ((x, a, c), (y, e, f)):
            centres = start + step * (np.arange(result.sizes[name]) + 0.5)
            result = result.assign_coords({name: (name, centres, data[name].attrs)})
    if data.rio.crs is not None:
        result = result.rio.write_crs(data.rio.crs)
    if plan.transform_out is not None:
        result = result.rio.write_transform(plan.transform_out)
    if plan.nodata_out is not None:
        result = result.rio.write_nodata(plan.nodata_out)
    if band is None:
        result = result.isel(band=0, drop=True)
    return result.transpose(*data.dims)
