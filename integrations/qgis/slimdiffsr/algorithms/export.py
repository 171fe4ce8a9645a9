"""Write a network for the Deepness plugin: an ONNX file that says how it is tiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
)

from .base import Algorithm


class ExportForDeepness(Algorithm):
    """``slimdiffsr export MODEL OUT.onnx``."""

    NAME = "exportfordeepness"
    TITLE = "Export for Deepness"
    HELP = """<p>Writes a model as an ONNX file with the metadata that the plugin Deepness reads, whose
super-resolution runs inside QGIS.</p>
<p>Deepness lays tiles side by side without blending them, does not keep empty areas, data types or
bands, and cannot go on after a cancel: prefer <i>Super-resolve raster</i> for whole scenes.</p>"""

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Parameters of the dialog."""
        self.add_model()
        numbers = getattr(QgsProcessingParameterNumber, "Type", QgsProcessingParameterNumber)
        self.addParameter(
            QgsProcessingParameterNumber(
                "RESOLUTION",
                "Pixel size of the input, metres",
                numbers.Double,
                10.0,
                minValue=0.001,
            )
        )
        self.addParameter(
            QgsProcessingParameterFileDestination("OUTPUT", "ONNX file", "ONNX (*.onnx)")
        )

    def processAlgorithm(self, parameters: dict, context: Any, feedback: Any) -> dict:
        """Run the command."""
        output = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        metres = self.parameterAsDouble(parameters, "RESOLUTION", context)
        model = self.model_of(parameters, context)
        arguments = ["export", model, output, "--resolution", f"{metres:g}"]
        if Path(output).exists():  # QGIS has asked
            arguments.append("--overwrite")
        self.run_command(arguments, feedback)
        return {"OUTPUT": output}
