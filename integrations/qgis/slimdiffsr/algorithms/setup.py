"""Set up the command in an environment of the plugin, outside QGIS's Python."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingException,
    QgsProcessingParameterFile,
    QgsProcessingParameterString,
)

from ..places import own_environment, own_program
from .base import Algorithm, advanced

OLDEST = (3, 11)


class SetUpCommand(Algorithm):
    """``python -m venv``, then ``pip install``."""

    NAME = "setup"
    TITLE = "Set up the command"
    HELP = """<p>Makes a Python environment in your QGIS profile and installs slimdiffsr there. QGIS's own
Python is not touched; take the folder <i>slimdiffsr</i> in the profile away to undo it.</p>
<p>It needs Python 3.11 or newer, which may be another than QGIS's, and some gigabytes for PyTorch.</p>
<p><b>What to install</b>: a requirement as pip reads it, a wheel or a folder of the source.</p>"""

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Parameters of the dialog."""
        self.addParameter(
            QgsProcessingParameterString("WHAT", "What to install", defaultValue="slimdiffsr")
        )
        self.addParameter(
            advanced(
                QgsProcessingParameterFile("PYTHON", "Python (empty: as found)", optional=True)
            )
        )
        self.addParameter(
            advanced(
                QgsProcessingParameterString("PIP_OPTIONS", "Options of pip install", optional=True)
            )
        )

    def processAlgorithm(self, parameters: dict, context: Any, feedback: Any) -> dict:
        """Make the environment, install, and ask the command for its version."""
        asked = self.parameterAsFile(parameters, "PYTHON", context)
        python = self._python(asked, feedback)
        folder = own_environment()
        self.run_command(["-m", "venv", "--clear", str(folder)], feedback, python)
        feedback.setProgress(10)
        options = self.parameterAsString(parameters, "PIP_OPTIONS", context).split()
        what = self.parameterAsString(parameters, "WHAT", context)
        own_python = str(own_program("python"))
        self.run_command(["-m", "pip", "install", *options, what], feedback, own_python)
        feedback.setProgress(95)
        version = self.run_command(["--version"], feedback, str(own_program("slimdiffsr")))
        feedback.pushInfo(version.strip())
        return {"COMMAND": str(own_program("slimdiffsr")), "VERSION": version.strip()}

    def _python(self, asked: str, feedback: Any) -> str:
        """A Python that is new enough; the one asked for, or the newest found."""
        inside = Path(sys.base_prefix) / ("python.exe" if os.name == "nt" else "bin/python3")
        newer = [shutil.which(f"python3.{minor}") for minor in (13, 12, 11)]
        found = [asked] if asked else [*newer, str(inside), shutil.which("python3")]
        tried = []
        for python in filter(None, found):
            if not Path(python).exists():
                continue
            script = "import sys; print(*sys.version_info[:2])"
            version = tuple(map(int, self.run_command(["-c", script], feedback, python).split()))
            if version >= OLDEST:
                return python
            tried.append(f"{python} is {version[0]}.{version[1]}")
        words = ", ".join(tried) or f"{asked or 'none'} was not found"
        raise QgsProcessingException(
            f"slimdiffsr needs Python 3.11 or newer, and {words}: install one and name it here"
        )
