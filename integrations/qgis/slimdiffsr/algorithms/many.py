"""Super-resolve many rasters into a folder: a bad one is told, the rest go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingOutputMultipleLayers,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMultipleLayers,
)

from .base import Algorithm

SOME_FAILED = 1  # the command's status when some of several inputs failed


class SuperResolveMany(Algorithm):
    """``slimdiffsr upscale IN... FOLDER``."""

    NAME = "superresolvemany"
    TITLE = "Super-resolve many"
    HELP = """<p>Enlarges many rasters into a folder, one after the other, as <i>Super-resolve raster</i>
does. One that cannot be enlarged is told and the rest go on.</p>
<p><b>Cancel</b> keeps what is finished: with the same folder, the next run goes on from there. Outputs
that are there already are kept.</p>"""

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Parameters of the dialog."""
        kinds = getattr(QgsProcessing, "SourceType", QgsProcessing)
        self.addParameter(
            QgsProcessingParameterMultipleLayers("INPUT", "Rasters", kinds.TypeRaster)
        )
        self.add_model()
        self.addParameter(QgsProcessingParameterBoolean("ALL_BANDS", "Carry all bands over", False))
        self.add_values()
        self.addParameter(QgsProcessingParameterFolderDestination("OUTPUT", "Folder"))
        self.addParameter(
            QgsProcessingParameterBoolean("LOAD", "Add the results to the project", False)
        )
        self.addOutput(QgsProcessingOutputMultipleLayers("LAYERS", "Super-resolved"))

    def processAlgorithm(self, parameters: dict, context: Any, feedback: Any) -> dict:
        """Run the command; results are loaded if asked for."""
        layers = self.parameterAsLayerList(parameters, "INPUT", context)
        folder = Path(self.parameterAsString(parameters, "OUTPUT", context))
        folder.mkdir(parents=True, exist_ok=True)
        arguments = [
            "upscale", *(layer.source() for layer in layers), str(folder), "--json",
            "--model", self.model_of(parameters, context), *self.value_options(parameters, context),
        ]  # fmt: skip
        if self.parameterAsBool(parameters, "ALL_BANDS", context):
            arguments.append("--all-bands")
        reports = json.loads(self.run_command(arguments, feedback, fine=(0, SOME_FAILED)))
        made = [report["dst"] for report in reports if "dst" in report]
        failed = [report["error"] for report in reports if "error" in report]
        for words in failed:
            feedback.reportError(words)
        if failed and not made:
            raise QgsProcessingException(failed[0])
        if self.parameterAsBool(parameters, "LOAD", context):
            for path in made:
                details = QgsProcessingContext.LayerDetails(
                    Path(path).stem, context.project(), path
                )
                context.addLayerToLoadOnCompletion(path, details)
        return {"OUTPUT": str(folder), "LAYERS": made}
