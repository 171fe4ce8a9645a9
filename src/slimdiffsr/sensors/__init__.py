"""What the sensor measured: products as users have them, and what their numbers mean."""

from slimdiffsr.sensors.find import find_product, is_product, known_raster, product_store
from slimdiffsr.sensors.know import SensorOptions, find_sensor, know
from slimdiffsr.sensors.presets import SENSORS
from slimdiffsr.sensors.product import BandFacts, Product
from slimdiffsr.sensors.result import check_item_path, write_result_item
from slimdiffsr.sensors.tables import Sensor, SensorBand

__all__ = [
    "SENSORS",
    "BandFacts",
    "Product",
    "Sensor",
    "SensorBand",
    "SensorOptions",
    "check_item_path",
    "find_product",
    "find_sensor",
    "is_product",
    "know",
    "known_raster",
    "product_store",
    "write_result_item",
]
