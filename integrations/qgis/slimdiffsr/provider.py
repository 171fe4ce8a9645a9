"""The group of algorithms in the Processing toolbox, and its one setting."""

from __future__ import annotations

from pathlib import Path

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms.export import ExportForDeepness
from .algorithms.many import SuperResolveMany
from .algorithms.raster import SuperResolveRaster
from .algorithms.setup import SetUpCommand
from .places import COMMAND_SETTING

ICON = Path(__file__).parent / "icon.svg"


class Provider(QgsProcessingProvider):
    """SlimDiffSR's algorithms."""

    def id(self) -> str:
        """Prefix of the algorithms' ids."""
        return "slimdiffsr"

    def name(self) -> str:
        """As the toolbox shows it."""
        return "SlimDiffSR"

    def icon(self) -> QIcon:
        """As the toolbox shows it."""
        return QIcon(str(ICON))

    def load(self) -> bool:
        """Register the setting, then the algorithms."""
        ProcessingConfig.settingIcons[self.name()] = self.icon()
        ProcessingConfig.addSetting(
            Setting(
                self.name(), COMMAND_SETTING, "slimdiffsr command (empty: the plugin's own)", ""
            )
        )
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def unload(self) -> None:
        """Take the setting away."""
        ProcessingConfig.removeSetting(COMMAND_SETTING)

    def loadAlgorithms(self) -> None:
        """All there are."""
        for algorithm in (SuperResolveRaster, SuperResolveMany, ExportForDeepness, SetUpCommand):
            self.addAlgorithm(algorithm())
