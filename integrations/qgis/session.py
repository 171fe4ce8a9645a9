"""Runs inside QGIS's own Python: the plugin as QGIS loads it, and what came of each algorithm.

python3 session.py PLUGINS IN OTHER FOLDER: prints JSON, for tests/test_qgis.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, "/usr/share/qgis/python/plugins")  # where Debian keeps "processing"

from qgis.core import (
    QgsApplication,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProject,
    QgsRasterLayer,
)


class Feedback(QgsProcessingFeedback):
    """Keeps what it is told; cancels itself at a share if asked to."""

    def __init__(self, cancel_at: float | None = None) -> None:
        super().__init__()
        self.told: list[str] = []
        self.shares: list[float] = []
        self.progressChanged.connect(self.shares.append)
        self.cancel_at = cancel_at

    def pushInfo(self, text: str) -> None:
        self.told.append(text)

    def reportError(self, text: str, fatal: bool = False) -> None:
        self.told.append(text)

    def isCanceled(self) -> bool:
        if self.cancel_at is not None and self.shares and self.shares[-1] >= self.cancel_at:
            self.cancel()
        return super().isCanceled()


def run(name: str, parameters: dict[str, Any], cancel_at: float | None = None) -> dict[str, Any]:
    """One algorithm; layers that are to be loaded are, with their style."""
    algorithm = QgsApplication.processingRegistry().createAlgorithmById(f"slimdiffsr:{name}")
    context, feedback = QgsProcessingContext(), Feedback(cancel_at)
    context.setProject(QgsProject.instance())
    for key in ("OUTPUT",):
        path = parameters.get(key)
        if isinstance(path, str) and path.endswith(".tif"):
            details = QgsProcessingContext.LayerDetails(key, QgsProject.instance(), key)
            context.addLayerToLoadOnCompletion(path, details)
    good, words = True, ""
    try:
        # Not "run", whose Python binding swallows what an algorithm says when it fails.
        algorithm.prepare(parameters, context, feedback)
        results = algorithm.processAlgorithm(parameters, context, feedback)
    except Exception as error:
        good, words, results = False, str(error), {}
    found = {
        "good": good,
        "error": words,
        "results": results,
        "told": feedback.told,
        "shares": feedback.shares,
    }
    if good:
        found["layers"] = [style(layer) for layer in loaded(context, feedback)]
    return found


def loaded(context: Any, feedback: Any) -> list[Any]:
    layers = []
    for path, details in context.layersToLoadOnCompletion().items():
        layer = QgsRasterLayer(path, details.name)
        QgsProject.instance().addMapLayer(layer)
        if details.postProcessor():
            details.postProcessor().postProcessLayer(layer, context, feedback)
        layers.append(layer)
    return layers


def style(layer: Any) -> dict[str, Any]:
    renderer = layer.renderer()
    enhancement = renderer.redContrastEnhancement() if renderer.type() == "multibandcolor" else None
    return {
        "name": layer.name(), "valid": layer.isValid(), "crs": layer.crs().authid(),
        "bands": renderer.usesBands(), "width": layer.width(),
        "extent": [layer.extent().xMinimum(), layer.extent().yMaximum()],
        "red": [enhancement.minimumValue(), enhancement.maximumValue()] if enhancement else None,
    }  # fmt: skip


def scenarios(source: str, other: str, folder: Path) -> dict[str, Any]:
    layer = QgsRasterLayer(source, "scene")
    QgsProject.instance().addMapLayer(layer)
    renderer = layer.renderer()
    renderer.setRedBand(4), renderer.setGreenBand(1), renderer.setBlueBand(2)
    renderer.redContrastEnhancement().setMinimumValue(12)
    renderer.redContrastEnhancement().setMaximumValue(200)
    out = lambda name: str(folder / name)  # noqa: E731
    layer_id = layer.id()
    box = layer.extent()
    part = f"{box.xMinimum()},{box.xMinimum() + 12},{box.yMaximum() - 9},{box.yMaximum()} [{layer.crs().authid()}]"
    bicubic = {"MODEL": 5}
    return {
        "whole": run("superresolve", {"INPUT": layer_id, "BANDS": 1, **bicubic, "OUTPUT": out("whole.tif")}),
        "part": run("superresolve", {"INPUT": layer_id, "EXTENT": part, **bicubic, "OUTPUT": out("part.tif")}),
        "chosen": run("superresolve", {"INPUT": layer_id, "BANDS": 2, "RED": 3, "GREEN": 2, "BLUE": 1,
            "ALL_BANDS": True, **bicubic, "OUTPUT": out("chosen.tif")}),
        "wrong": run("superresolve", {"INPUT": layer_id, "RANGE": "9,1", **bicubic, "OUTPUT": out("wrong.tif")}),
        "cancelled": run("superresolve", {"INPUT": layer_id, "EXTRA": "--chunk 512", "MODEL": 0, "OUTPUT": out("long.tif")}, 40),
        "resumed": run("superresolve", {"INPUT": layer_id, "EXTRA": "--chunk 512", "MODEL": 0, "OUTPUT": out("long.tif")}),
        "exported": run(
            "exportfordeepness", {"MODEL": 0, "RESOLUTION": 2.4, "OUTPUT": out("tiny.onnx")}
        ),
        "many": run("superresolvemany", {"INPUT": [layer_id, other], **bicubic, "OUTPUT": out("many"), "LOAD": True}),
    }  # fmt: skip


def main() -> None:
    plugins, source, other, folder = sys.argv[1:]
    application = QgsApplication([], False)
    application.initQgis()
    sys.path.insert(0, plugins)
    from processing.core.Processing import Processing

    Processing.initialize()
    import slimdiffsr

    plugin = slimdiffsr.classFactory(None)
    plugin.initProcessing()
    found = scenarios(source, other, Path(folder))
    plugin.unload()
    print(json.dumps(found))
    application.exitQgis()


if __name__ == "__main__":
    main()
