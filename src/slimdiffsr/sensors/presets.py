"""The sensors known by name.

Names, factors and fill values are those of the producers' product guides; wavelengths decide what
a band is. Black and white are ours: reflectance 0 to 0.3 is what most land needs, and the same
for every scene and date.
"""

from __future__ import annotations

from slimdiffsr.sensors.tables import Role, Sensor, SensorBand

__all__ = ["SENSORS"]


def _bands(*rows: tuple[str, str, float]) -> tuple[SensorBand, ...]:
    """Role, names separated by spaces, pixel in metres."""
    return tuple(SensorBand(role, tuple(names.split()), m) for role, names, m in rows)  # type: ignore[arg-type]  # roles are checked


# ESA, Sentinel-2 Products Specification Document: the bands of MSI.
_MSI = _bands(
    ("coastal", "b1", 60), ("blue", "b2", 10), ("green", "b3", 10), ("red", "b4", 10),
    ("rededge071", "b5 rededge1 rededge re1", 20), ("rededge075", "b6 rededge2 re2", 20),
    ("rededge078", "b7 rededge3 re3", 20), ("nir", "b8", 10), ("nir08", "b8a b8_a", 20),
    ("nir09", "b9", 60), ("cirrus", "b10", 60), ("swir16", "b11 swir1", 20),
    ("swir22", "b12 swir2", 20),
)  # fmt: skip

# USGS, Landsat Collection 2 product guides. TM and ETM+, then OLI and TIRS.
_TM = _bands(
    ("blue", "b1 sr_b1", 30), ("green", "b2 sr_b2", 30), ("red", "b3 sr_b3", 30),
    ("nir08", "b4 sr_b4 nir", 30), ("swir16", "b5 sr_b5 swir1", 30), ("lwir11", "b6 st_b6", 60),
    ("swir22", "b7 sr_b7 swir2", 30), ("pan", "b8", 15),
)  # fmt: skip
_OLI = _bands(
    ("coastal", "b1 sr_b1", 30), ("blue", "b2 sr_b2", 30), ("green", "b3 sr_b3", 30),
    ("red", "b4 sr_b4", 30), ("nir08", "b5 sr_b5 nir", 30), ("swir16", "b6 sr_b6 swir1", 30),
    ("swir22", "b7 sr_b7 swir2", 30), ("pan", "b8", 15), ("cirrus", "b9", 30),
    ("lwir11", "b10 st_b10", 100), ("lwir12", "b11", 100),
)  # fmt: skip

# Planet, PSScene: four bands of Dove, eight of SuperDove.
_DOVE = _bands(
    ("coastal", "coastal_blue", 3), ("blue", "blue", 3), ("green05", "green_i green1", 3),
    ("green", "green green_ii", 3), ("yellow", "yellow", 3), ("red", "red", 3),
    ("rededge071", "rededge red_edge", 3), ("nir", "nir", 3),
)  # fmt: skip

# NASA, MODIS surface reflectance: red is band 1.
_MODIS = _bands(
    ("red", "b1 sur_refl_b1 sur_refl_b1_1 nadir_reflectance_b1", 250),
    ("nir08", "b2 sur_refl_b2 sur_refl_b2_1 nadir_reflectance_b2", 250),
    ("blue", "b3 sur_refl_b3 sur_refl_b3_1 nadir_reflectance_b3", 500),
    ("green", "b4 sur_refl_b4 sur_refl_b4_1 nadir_reflectance_b4", 500),
    ("swir12", "b5 sur_refl_b5 sur_refl_b5_1 nadir_reflectance_b5", 500),
    ("swir16", "b6 sur_refl_b6 sur_refl_b6_1 nadir_reflectance_b6", 500),
    ("swir22", "b7 sur_refl_b7 sur_refl_b7_1 nadir_reflectance_b7", 500),
)

_EIGHT: tuple[Role, ...] = (
    "coastal",
    "blue",
    "green05",
    "green",
    "yellow",
    "red",
    "rededge071",
    "nir",
)
_AERIAL = _bands(("red", "red r", 1), ("green", "green g", 1), ("blue", "blue b", 1),
                 ("nir", "nir nir08 infrared n", 1))  # fmt: skip

_SENSORS = (
    Sensor(
        "sentinel-2-l2a", "Sentinel-2 MSI, surface reflectance", _MSI,
        scale=1e-4, offset_rule="sentinel-2", nodata=0, special=(65535,),
        files=(r"S2[A-D]_MSIL2A_", r"S2[A-D]_USER_PRD_MSIL2A", r"S2[A-D]_T?\d\d[A-Z]{3}_.*_L2A",
               r"T\d\d[A-Z]{3}_\d{8}T\d{6}_B\w\w_[126]0m"),
        collections=("sentinel-2-l2a", "sentinel-2-c1-l2a", "sentinel-2-pre-c1-l2a",
                     "COPERNICUS/S2_SR", "COPERNICUS/S2_SR_HARMONIZED"),
    ),
    Sensor(
        "sentinel-2-l1c", "Sentinel-2 MSI, reflectance above the atmosphere", _MSI,
        scale=1e-4, offset_rule="sentinel-2", nodata=0, special=(65535,), white=0.35,
        files=(r"S2[A-D]_MSIL1C_", r"S2[A-D]_OPER_PRD_MSIL1C", r"S2[A-D]_OPER_MSI_L1C_",
               r"S2[A-D]_T?\d\d[A-Z]{3}_.*_L1C", r"T\d\d[A-Z]{3}_\d{8}T\d{6}_B\w\w(?!_[126]0m)"),
        collections=("sentinel-2-l1c", "COPERNICUS/S2", "COPERNICUS/S2_HARMONIZED"),
    ),
    Sensor(
        "landsat-4-7-c2l2", "Landsat 4, 5, 7 TM and ETM+, Collection 2 surface reflectance", _TM,
        scale=2.75e-5, offset=-0.2, nodata=0, files=(r"L[TE]0[457]_L2S[PR]_\d{6}_\d{8}",),
    ),
    Sensor(
        "landsat-8-9-c2l2", "Landsat 8, 9 OLI, Collection 2 surface reflectance", _OLI,
        scale=2.75e-5, offset=-0.2, nodata=0, files=(r"L[CO]0[89]_L2S[PR]_\d{6}_\d{8}",),
    ),
    Sensor(
        "landsat-4-7-c2l1", "Landsat 4, 5, 7, Collection 2 above the atmosphere", _TM,
        nodata=0, white=0.35, files=(r"L[TE]0[457]_L1(TP|GT|GS)_\d{6}_\d{8}",),
    ),
    Sensor(
        "landsat-8-9-c2l1", "Landsat 8, 9, Collection 2 above the atmosphere", _OLI,
        scale=2e-5, offset=-0.1, nodata=0, white=0.35,
        files=(r"L[CO]0[89]_L1(TP|GT|GS)_\d{6}_\d{8}",),
    ),
    Sensor(
        "hls-l30", "Harmonized Landsat, surface reflectance", _OLI,
        scale=1e-4, nodata=-9999, files=(r"HLS\.L30\.T",), collections=("HLSL30.v2.0",),
    ),
    Sensor(
        "hls-s30", "Harmonized Sentinel-2, surface reflectance", _MSI,
        scale=1e-4, nodata=-9999, files=(r"HLS\.S30\.T",), collections=("HLSS30.v2.0",),
    ),
    Sensor(
        "planetscope", "PlanetScope Dove and SuperDove, surface reflectance", _DOVE,
        scale=1e-4, nodata=0,
        orders=(("blue", "green", "red", "nir"), _EIGHT),
        files=(r"_3B_AnalyticMS_(8b_)?SR", r"_3B_AnalyticMS_SR(_8b)?", r"ortho_analytic_[48]b_sr"),
    ),
    Sensor(
        "planetscope-visual", "PlanetScope, 8-bit picture", _DOVE, numbers="picture",
        orders=(("red", "green", "blue"),),
        files=(r"_3B_Visual", r"ortho_visual"),
    ),
    Sensor(
        "modis", "MODIS surface reflectance (MOD09, MCD43A4)", _MODIS,
        scale=1e-4, nodata=-28672, files=(r"M[OY]D09\w{1,2}\.A\d{7}",),
    ),
    Sensor(
        "naip", "NAIP, 8-bit pictures with near infrared", _AERIAL, numbers="picture",
        orders=(("red", "green", "blue", "nir"), ("red", "green", "blue")),
        files=(r"m_\d{7}_[ns][ew]_\d{1,2}_\w+_\d{8}",), collections=("naip",),
    ),
    Sensor(
        "aerial", "Any 8-bit aerial picture", _AERIAL, numbers="picture",
        orders=(("red", "green", "blue", "nir"), ("red", "green", "blue")),
    ),
)  # fmt: skip

SENSORS = {sensor.name: sensor for sensor in _SENSORS}
