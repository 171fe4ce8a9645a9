"""Runs in QGIS's desktop (qgis --code): both rasters beside the plugin's dialog, as a picture.

The environment names SLIMDIFFSR_IN, SLIMDIFFSR_OUT (rasters) and SLIMDIFFSR_PICTURE (PNG).
"""

from __future__ import annotations

import os

import processing
from qgis.core import QgsProject, QgsRasterLayer, QgsRectangle
from qgis.PyQt.QtCore import QTimer
from qgis.PyQt.QtGui import QPainter
from qgis.PyQt.QtWidgets import QApplication, QDockWidget, QLineEdit
from qgis.utils import iface

SIZE = (1500, 900)


def open_layers() -> None:
    layers = []
    for name, key in (("scene", "SLIMDIFFSR_IN"), ("scene x4", "SLIMDIFFSR_OUT")):
        layers.append(QgsRasterLayer(os.environ[key], name))
        QgsProject.instance().addMapLayer(layers[-1])
    window = iface.mainWindow()
    window.resize(*SIZE)
    for dock in window.findChildren(QDockWidget):
        dock.setVisible(dock.objectName() in ("Layers", "ProcessingToolbox"))
    toolbox = window.findChild(QDockWidget, "ProcessingToolbox")
    toolbox.findChild(QLineEdit).setText("super-res")
    dialog = processing.createAlgorithmDialog("slimdiffsr:superresolve", {"INPUT": layers[0].id()})
    dialog.show()
    dialog.resize(760, 600)
    QTimer.singleShot(1500, lambda: look(layers[1]))
    QTimer.singleShot(6000, lambda: take(window, dialog))


def look(layer: QgsRasterLayer) -> None:
    """The upper left of the scene, where the dialog does not cover it."""
    box = layer.extent()
    across, down = 0.9 * box.width(), 0.9 * box.height()
    left, top = box.xMinimum() + 0.35 * box.width(), box.yMaximum() - 0.05 * box.height()
    iface.mapCanvas().setExtent(QgsRectangle(left, top - down, left + across, top))


def take(window: object, dialog: object) -> None:
    picture = window.grab()
    painter = QPainter(picture)
    painter.drawPixmap(SIZE[0] - 780, SIZE[1] - 630, dialog.grab())
    painter.end()
    picture.save(os.environ["SLIMDIFFSR_PICTURE"])
    os._exit(0)  # no question about unsaved changes


QTimer.singleShot(3000, open_layers)
QApplication.setQuitOnLastWindowClosed(False)
