"""What the algorithms share: models, options of the command, and running it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qgis.core import (
    Qgis,
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFile,
    QgsProcessingParameterString,
)
from qgis.PyQt.QtGui import QIcon

from ..command import CancelledError, CommandError, run
from ..places import find_command

MODELS = (
    "tiny-x4", "tiny-x4-faithful", "compact-x4", "compact-x8", "tiny-x8", "bicubic", "lanczos",
)  # fmt: skip
ICON = Path(__file__).parents[1] / "icon.svg"


def advanced(parameter: Any) -> Any:
    """The parameter below the fold. QGIS 3.36 and later name the flag otherwise."""
    names = getattr(Qgis, "ProcessingParameterFlag", None)
    flag = names.Advanced if names else QgsProcessingParameterDefinition.FlagAdvanced
    parameter.setFlags(parameter.flags() | flag)
    return parameter


class Algorithm(QgsProcessingAlgorithm):
    """An algorithm that runs the command. Subclasses say NAME, TITLE, HELP, parameters and run."""

    NAME = TITLE = HELP = ""

    def name(self) -> str:
        """Second part of the id."""
        return self.NAME

    def displayName(self) -> str:
        """As the toolbox shows it."""
        return self.TITLE

    def shortHelpString(self) -> str:
        """Beside the dialog."""
        return " ".join(self.HELP.split())  # QGIS shows the ends of lines

    def icon(self) -> QIcon:
        """As the toolbox shows it."""
        return QIcon(str(ICON))

    def createInstance(self) -> Algorithm:
        """QGIS runs a fresh one each time."""
        return type(self)()

    # What parameters become

    def add_model(self) -> None:
        """Parameters that say which network."""
        self.addParameter(QgsProcessingParameterEnum("MODEL", "Model", MODELS, defaultValue=0))
        self.addParameter(
            advanced(
                QgsProcessingParameterFile(
                    "MODEL_FILE", "Model from a file, instead", optional=True,
                    fileFilter="Weights (*.safetensors *.onnx *.xml)",
                )
            )
        )  # fmt: skip

    def add_values(self) -> None:
        """Parameters that say what the numbers in a raster mean."""
        self.addParameter(
            QgsProcessingParameterString(
                "SENSOR", "Sensor (empty: auto), such as sentinel-2-l2a", optional=True
            )
        )
        self.addParameter(
            advanced(
                QgsProcessingParameterString(
                    "RANGE", "Values seen as black,white (empty: auto)", optional=True
                )
            )
        )
        self.addParameter(
            advanced(
                QgsProcessingParameterString(
                    "EXTRA", "More options of slimdiffsr upscale", optional=True
                )
            )
        )

    def model_of(self, parameters: dict, context: Any) -> str:
        """What ``--model`` gets."""
        chosen = self.parameterAsFile(parameters, "MODEL_FILE", context)
        return chosen or MODELS[self.parameterAsEnum(parameters, "MODEL", context)]

    def value_options(self, parameters: dict, context: Any) -> list[str]:
        """Options of the command that say what the numbers in a raster mean."""
        options = []
        for name, option in (("SENSOR", "--sensor"), ("RANGE", "--range")):
            text = self.parameterAsString(parameters, name, context).strip()
            if text:
                options += [option, text]
        return options + self.parameterAsString(parameters, "EXTRA", context).split()

    def run_command(
        self,
        arguments: Sequence[str],
        feedback: QgsProcessingFeedback,
        program: str | None = None,
        fine: Sequence[int] = (0,),
    ) -> str:
        """Run the command; its stdout. Raises QgsProcessingException with the command's sentence."""
        try:
            command = [program or find_command(), *arguments]
            feedback.pushCommandInfo(" ".join(command))
            return run(
                command,
                tell=feedback.pushInfo,
                progress=feedback.setProgress,
                cancelled=feedback.isCanceled,
                fine=fine,
            )
        except CommandError as error:
            raise QgsProcessingException(str(error)) from None
        except CancelledError:
            raise QgsProcessingException(
                "stopped: run it again with the same output, and it goes on from here"
            ) from None
