"""Super-resolve one raster, the whole of it or an extent, and show it as the input is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsMultiBandColorRenderer,
    QgsProcessingException,
    QgsProcessingLayerPostProcessorInterface,
    QgsProcessingParameterBand,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProject,
)

from .base import Algorithm, advanced

COLOURS = ("RED", "GREEN", "BLUE")
BAND_RULES = ("as slimdiffsr finds them", "as the layer shows them", "as chosen below")


class SuperResolveRaster(Algorithm):
    """``slimdiffsr upscale IN OUT``."""

    NAME = "superresolve"
    TITLE = "Super-resolve raster"
    HELP = """<p>Enlarges a raster 4 or 8 times: same place, data type, bands and empty areas, pixels
4 or 8 times smaller. Scenes of any size, in bounded memory.</p>
<p><b>Model</b>: tiny-x4 is fast and sharp; tiny-x4-faithful invents nothing and is soft; compact-x4 is
the most natural and invents the most.</p>
<p><b>Bands</b>: the network sees red, green and blue. They are found by colour tags and names, or taken
from the layer's style, or chosen. With <i>all bands</i> the others are carried over.</p>
<p><b>Extent</b>: only this part, from the canvas or a layer.</p>
<p><b>Cancel</b> keeps what is finished: with the same output file, the next run goes on from there. A
temporary output cannot be gone on with.</p>
<p>Detail below the input's resolution is plausible, not observed.</p>"""

    def __init__(self) -> None:
        super().__init__()
        self.styled: _SameStyle | None = None  # kept: QGIS does not own it

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Parameters of the dialog."""
        self.addParameter(QgsProcessingParameterRasterLayer("INPUT", "Raster"))
        self.add_model()
        self.addParameter(
            QgsProcessingParameterEnum(
                "BANDS", "Bands seen as red, green, blue", BAND_RULES, defaultValue=0
            )
        )
        for colour in COLOURS:
            self.addParameter(
                advanced(
                    QgsProcessingParameterBand(
                        colour, f"{colour.capitalize()}, if chosen here",
                        parentLayerParameterName="INPUT", optional=True,
                    )
                )
            )  # fmt: skip
        self.addParameter(QgsProcessingParameterBoolean("ALL_BANDS", "Carry all bands over", False))
        self.addParameter(QgsProcessingParameterExtent("EXTENT", "Extent", optional=True))
        self.add_values()
        self.addParameter(QgsProcessingParameterRasterDestination("OUTPUT", "Super-resolved"))

    def processAlgorithm(self, parameters: dict, context: Any, feedback: Any) -> dict:
        """Run the command, and have the result styled as the input."""
        layer = self.parameterAsRasterLayer(parameters, "INPUT", context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, "INPUT"))
        output = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        arguments = [
            "upscale", layer.source(), output, "--json",
            "--model", self.model_of(parameters, context),
            *self._bands(layer, parameters, context),
            *self._extent(layer, parameters, context),
            *self.value_options(parameters, context),
        ]  # fmt: skip
        if self.parameterAsBool(parameters, "ALL_BANDS", context):
            arguments.append("--all-bands")
        if Path(output).exists():  # QGIS has asked
            arguments.append("--overwrite")
        (report,) = json.loads(self.run_command(arguments, feedback))
        self._style(layer, output, report["plan"], context)
        return {"OUTPUT": output}

    def _bands(self, layer: Any, parameters: dict, context: Any) -> list[str]:
        rule = BAND_RULES[self.parameterAsEnum(parameters, "BANDS", context)]
        if rule == BAND_RULES[0]:
            return []
        if rule == BAND_RULES[1]:
            renderer = layer.renderer()
            bands = list(renderer.usesBands()) if renderer else []
            if isinstance(renderer, QgsMultiBandColorRenderer):
                bands = [renderer.redBand(), renderer.greenBand(), renderer.blueBand()]
        else:
            bands = [self.parameterAsInt(parameters, colour, context) for colour in COLOURS]
        if len(bands) not in (1, 3) or min(bands) < 1:
            raise QgsProcessingException(f"one band or three must be {rule}, not {bands}")
        return ["--bands", ",".join(map(str, bands))]

    def _extent(self, layer: Any, parameters: dict, context: Any) -> list[str]:
        extent = self.parameterAsExtent(parameters, "EXTENT", context, layer.crs())
        if extent.isNull() or extent.isEmpty():
            return []
        corners = (extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum())
        return ["--bounds", " ".join(repr(corner) for corner in corners)]

    def _style(self, layer: Any, output: str, plan: dict, context: Any) -> None:
        if not context.willLoadLayerOnCompletion(output):
            return
        details = context.layerToLoadOnCompletionDetails(output)
        details.name = f"{layer.name()} x{plan['scale']:g}"
        written = plan["rgb_bands"] if not plan.get("all_bands") else []
        self.styled = _SameStyle(layer.id(), written)
        details.setPostProcessor(self.styled)


class _SameStyle(QgsProcessingLayerPostProcessorInterface):
    """Gives a result the input's renderer, its bands renumbered."""

    def __init__(self, input_id: str, written: list[int]) -> None:
        super().__init__()
        self.input_id, self.written = input_id, written

    def postProcessLayer(self, layer: Any, context: Any, feedback: Any) -> None:
        """Called by QGIS when the layer is in the project."""
        source = QgsProject.instance().mapLayer(self.input_id)
        if source is None or source.renderer() is None:
            return
        renderer = source.renderer().clone()
        fewer = layer.bandCount() < source.bandCount()
        coloured = isinstance(renderer, QgsMultiBandColorRenderer)
        if fewer and not (coloured and self._renumber(renderer)):
            return
        layer.setRenderer(renderer)
        layer.triggerRepaint()

    def _renumber(self, renderer: QgsMultiBandColorRenderer) -> bool:
        """Whether the result has all bands that the input's style shows."""
        shown = [renderer.redBand(), renderer.greenBand(), renderer.blueBand()]
        if not set(shown) <= set(self.written):
            return False
        red, green, blue = (self.written.index(band) + 1 for band in shown)
        renderer.setRedBand(red)
        renderer.setGreenBand(green)
        renderer.setBlueBand(blue)
        return True
