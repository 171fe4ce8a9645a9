"""SlimDiffSR in QGIS. Licence: GPL-2.0-or-later (LICENSE in this folder)."""

from __future__ import annotations


def classFactory(iface):
    """What QGIS calls to load the plugin."""
    from .plugin import Plugin

    return Plugin()
