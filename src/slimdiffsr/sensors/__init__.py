"""What the sensor measured: products as users have them, and what their numbers mean."""

from slimdiffsr.sensors.find import find_product, known_raster, product_store
from slimdiffsr.sensors.know import SensorOptions, find_sensor, know
from slimdiffsr.sensors.presets import SENSORS
from slimdiffsr.sensors.product import BandFacts, Product
from slimdiffsr.sensors.tables import Sensor, SensorBand

__all__ = [
    "SENSORS",
    "BandFacts",
    "Product",
    "Sensor",
    "SensorBand",
    "SensorOptions",
    "find_product",
    "find_sensor",
    "know",
    "known_raster",
    "product_store",
]
