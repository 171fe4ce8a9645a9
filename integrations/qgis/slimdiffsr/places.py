"""Where the command is: as the user says, in the plugin's own environment, or on the path."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from processing.core.ProcessingConfig import ProcessingConfig
from qgis.core import QgsApplication

from .command import CommandError

COMMAND_SETTING = "SLIMDIFFSR_COMMAND"


def own_environment() -> Path:
    """The folder of the plugin's environment, in the user's profile of QGIS."""
    return Path(QgsApplication.qgisSettingsDirPath()) / "slimdiffsr" / "environment"


def own_program(name: str) -> Path:
    """A program of the plugin's environment."""
    windows = os.name == "nt"
    folder = "Scripts" if windows else "bin"
    return own_environment() / folder / (f"{name}.exe" if windows else name)


def find_command() -> str:
    """The slimdiffsr command. Raises CommandError when there is none."""
    asked = ProcessingConfig.getSetting(COMMAND_SETTING) or os.environ.get(COMMAND_SETTING) or ""
    if asked:
        if shutil.which(asked) is None:
            raise CommandError(
                f"{asked} is no program: correct the slimdiffsr command in Settings, Options, "
                "Processing, Providers, SlimDiffSR"
            )
        return asked
    own = own_program("slimdiffsr")
    found = str(own) if own.exists() else shutil.which("slimdiffsr")
    if found is None:
        raise CommandError(
            "the slimdiffsr command was not found: run the algorithm 'Set up the command', or name "
            "it in Settings, Options, Processing, Providers, SlimDiffSR"
        )
    return found
