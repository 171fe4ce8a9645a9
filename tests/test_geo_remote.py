"""Rasters behind HTTP and S3: read in ranges, or refused in one sentence."""

import socket
from pathlib import Path

import numpy as np
import pytest
from rasterio._err import CPLE_AppDefinedError
from rasters import byte_picture, nearest, read, repeat, write_raster
from serving import keep_gdal_brisk, served

from slimdiffsr.errors import RasterError
from slimdiffsr.geo import upscale_scene


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """GDAL neither waits nor asks elsewhere."""
    keep_gdal_brisk(monkeypatch)


def refusal(src: str, folder: Path) -> str:
    """The sentence that refuses an input; nothing is written."""
    with pytest.raises(RasterError) as refused:
        upscale_scene(src, folder / "o.tif", nearest())
    assert "\n" not in str(refused.value)
    assert not list(folder.iterdir())
    return str(refused.value)


@pytest.mark.parametrize("prefix", ["/vsicurl/", ""])
def test_a_raster_behind_http_is_read_in_ranges(tmp_path: Path, prefix: str) -> None:
    values = byte_picture(3, 300, 290)
    write_raster(tmp_path / "in.tif", values, tiled=True, blockxsize=128, blockysize=128)
    asked: list[str] = []
    with served(tmp_path, "ranges", asked) as address:
        upscale_scene(f"{prefix}{address}/in.tif", tmp_path / "o.tif", nearest())
    np.testing.assert_array_equal(read(tmp_path / "o.tif"), repeat(values, 4))
    assert len(asked) > 1


def test_a_server_without_ranges_does_as_well(tmp_path: Path) -> None:
    values = byte_picture(3, 60, 70)
    write_raster(tmp_path / "in.tif", values)
    with served(tmp_path, "whole") as address:
        upscale_scene(f"/vsicurl/{address}/in.tif", tmp_path / "o.tif", nearest())
    np.testing.assert_array_equal(read(tmp_path / "o.tif"), repeat(values, 4))


def test_what_no_server_has_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with served(tmp_path, "whole") as address:
        assert "404" in refusal(f"{address}/none.tif", tmp_path)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 without accounts, at whatever address AWS_S3_ENDPOINT will name."""
    monkeypatch.setenv("AWS_HTTPS", "NO")
    monkeypatch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere/config")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/credentials")


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize("src", ["s3://no-such-bucket/in.tif", "/vsis3/no-such-bucket/in.tif"])
def test_s3_without_credentials_is_refused_in_one_sentence(tmp_path: Path, src: str) -> None:
    words = refusal(src, tmp_path)
    assert words.startswith(f"{src} cannot be opened: ")
    assert "AWS_SECRET_ACCESS_KEY and AWS_NO_SIGN_REQUEST" in words


@pytest.mark.usefixtures("s3")
def test_an_s3_endpoint_that_refuses_is_told_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    with socket.socket() as taken:  # bound, but not listening
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_S3_ENDPOINT", f"127.0.0.1:{taken.getsockname()[1]}")
        words = refusal("s3://bucket/in.tif", tmp_path)
    assert "s3://bucket/in.tif cannot be opened: " in words
    assert "connect" in words


@pytest.mark.usefixtures("s3")
def test_a_missing_bucket_is_refused_and_a_present_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    store, out = tmp_path / "store", tmp_path / "out"
    (store / "bucket").mkdir(parents=True)
    out.mkdir()
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")  # the stand-in lists nothing
    values = byte_picture(3, 60, 70)
    write_raster(store / "bucket" / "in.tif", values)
    with served(store, "ranges") as address:
        monkeypatch.setenv("AWS_S3_ENDPOINT", address.removeprefix("http://"))
        assert "s3://none/in.tif cannot be opened: " in refusal("s3://none/in.tif", out)
        upscale_scene("s3://bucket/in.tif", out / "o.tif", nearest())
    np.testing.assert_array_equal(read(out / "o.tif"), repeat(values, 4))


def test_a_header_that_fails_half_way_is_told_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise CPLE_AppDefinedError(3, 1, "the connection broke")

    src = write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20))
    monkeypatch.setattr("slimdiffsr.geo.scene.fingerprint", fail)
    with pytest.raises(RasterError, match=r"in\.tif cannot be read: the connection broke"):
        upscale_scene(src, tmp_path / "o.tif", nearest())
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]
