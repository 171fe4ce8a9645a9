"""Where a job lies: a folder that all machines see, or an object store.

What is asked of a place is what every store has: whole objects under keys, put, get, list, delete,
and a put that refuses to replace. No locks, no renames, no appending.

obstore carries the stores: one small library in Rust without dependencies, which retries, signs and
puts conditionally on S3, Google Cloud and Azure alike; fsspec needs a package a store, and its
conditional puts differ from one to the next.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from slimdiffsr.errors import ConfigError, OutputError, PlaceError
from slimdiffsr.geo.chunks import sync
from slimdiffsr.geo.failures import output_error

__all__ = ["FolderPlace", "Place", "StorePlace", "is_remote", "open_place"]

SCHEMES = ("s3", "gs", "az")
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_ENDPOINT_URL for another server)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
}
_EXTRA = "pip install 'slimdiffsr[stores]'"


class Place(Protocol):
    """Whole objects under keys such as ``chunks/000001/a.tif``. Raises PlaceError for all trouble."""

    @property
    def address(self) -> str:
        """As the user gave it."""
        ...

    def put(self, key: str, data: bytes, *, replace: bool = False) -> bool:
        """Write an object whole; False, and nothing changed, when there is one already."""
        ...

    def put_file(self, key: str, path: Path) -> None:
        """Write a file of any size as an object, whole; one that is there is replaced."""
        ...

    def get(self, key: str) -> bytes | None:
        """An object's bytes, or None when there is none."""
        ...

    def has(self, key: str) -> bool:
        """Whether there is an object."""
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys that begin with ``prefix``, which ends in a slash, in no order."""
        ...

    def delete(self, key: str) -> None:
        """Delete an object, if it is there."""
        ...


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """A folder; shared by several machines it must show each what the others wrote."""

    address: str

    def path(self, key: str) -> Path:
        """The file of a key."""
        return Path(self.address) / key

    def put(self, key: str, data: bytes, *, replace: bool = False) -> bool:
        """As in ``Place``: written beside and linked or renamed when whole."""
        path = self.path(key)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                temporary.replace(path)
            else:
                _link(temporary, path)
            sync(path.parent)
        except FileExistsError:
            return False
        except OSError as error:
            raise output_error(path, error) from None
        finally:
            with suppress(OSError):
                temporary.unlink()
        return True

    def put_file(self, key: str, path: Path) -> None:
        """As in ``Place``."""
        target = self.path(key)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, temporary)
            temporary.replace(target)
        except OSError as error:
            raise output_error(target, error) from None
        finally:
            with suppress(OSError):
                temporary.unlink()

    def get(self, key: str) -> bytes | None:
        """As in ``Place``."""
        try:
            return self.path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise PlaceError(f"cannot read {self.path(key)}: {error.strerror}") from None

    def has(self, key: str) -> bool:
        """As in ``Place``."""
        return self.path(key).is_file()

    def keys(self, prefix: str) -> Iterator[str]:
        """As in ``Place``."""
        for folder, _, files in os.walk(self.path(prefix)):
            inside = Path(folder).relative_to(self.address).as_posix()
            yield from (f"{inside}/{name}" for name in files if not name.startswith("."))

    def delete(self, key: str) -> None:
        """As in ``Place``."""
        try:
            self.path(key).unlink(missing_ok=True)
        except OSError as error:
            raise PlaceError(f"cannot delete {self.path(key)}: {error.strerror}") from None


def _link(temporary: Path, path: Path) -> None:
    # A hard link refuses to replace, which a rename does not; some file systems have none.
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        if path.exists():
            raise FileExistsError from None
        temporary.replace(path)


@dataclass(frozen=True, slots=True)
class StorePlace:
    """An object store, by obstore. Can be handed to another process."""

    address: str

    def put(self, key: str, data: bytes, *, replace: bool = False) -> bool:
        """As in ``Place``: a conditional put."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._said(f"write {key}"):
            try:
                obstore.put(self._store(), key, data, mode="overwrite" if replace else "create")
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def put_file(self, key: str, path: Path) -> None:
        """As in ``Place``: in parts, so that memory stays small."""
        import obstore

        with self._said(f"write {key}"):
            obstore.put(self._store(), key, path, mode="overwrite")

    def get(self, key: str) -> bytes | None:
        """As in ``Place``."""
        import obstore

        with self._said(f"read {key}"):
            try:
                return bytes(obstore.get(self._store(), key).bytes())
            except FileNotFoundError:  # obstore's NotFoundError is one
                return None

    def has(self, key: str) -> bool:
        """As in ``Place``."""
        import obstore

        with self._said(f"look at {key}"):
            try:
                obstore.head(self._store(), key)
            except FileNotFoundError:
                return False
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        """As in ``Place``."""
        import obstore

        with self._said(f"list {prefix}"):
            for page in obstore.list(self._store(), prefix=prefix.rstrip("/")):
                yield from (str(entry["path"]) for entry in page)

    def delete(self, key: str) -> None:
        """As in ``Place``."""
        import obstore

        with self._said(f"delete {key}"), suppress(FileNotFoundError):
            obstore.delete(self._store(), key)

    def _store(self) -> Any:  # noqa: ANN401  one of obstore's stores
        return _stores(self.address)

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError):
            scheme = self.address.partition(":")[0]
            raise PlaceError(
                f"{self.address} does not let us {what}: check {_CREDENTIALS.get(scheme, '')}"
            ) from None
        except (BaseError, OSError) as error:
            raise PlaceError(f"cannot {what} in {self.address}: {_first(error)}") from None


def _first(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__


def _stores(address: str) -> Any:  # noqa: ANN401  one of obstore's stores
    # Made anew in each process and for each use: it holds threads, and costs microseconds.
    from obstore.store import from_url

    options: dict[str, Any] = {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    if address.startswith("s3:") and endpoint.startswith("http:"):
        options["client_options"] = {"allow_http": True}
    return from_url(address, **options)


def is_remote(address: str) -> bool:
    """Whether an address names an object store."""
    return "://" in address


def open_place(address: str) -> Place:
    """The place at an address; nothing is made yet.

    address: a folder, or ``s3://bucket/prefix``, ``gs://...``, ``az://...``. Raises ConfigError for
    another kind, or when obstore is not installed; PlaceError when the store cannot be set up.
    """
    if not is_remote(address):
        return FolderPlace(os.path.abspath(os.path.expanduser(address)))
    scheme = address.partition("://")[0]
    if scheme not in SCHEMES:
        raise ConfigError(
            f"{address} is no place that is known: give a folder, or an address that begins with "
            f"{', '.join(f'{name}://' for name in SCHEMES)}"
        )
    try:
        import obstore
    except ImportError:
        raise ConfigError(f"{scheme}:// needs the package obstore: {_EXTRA}") from None
    place = StorePlace(address.rstrip("/"))
    try:
        _stores(place.address)
    except (obstore.exceptions.BaseError, ValueError) as error:
        raise PlaceError(
            f"{address} cannot be opened: {_first(error)}; check {_CREDENTIALS[scheme]}"
        ) from None
    return place


def check_writable(place: Place) -> None:
    """Raise PlaceError or OutputError unless objects can be put, read and deleted there."""
    key = f"trial-{uuid.uuid4().hex}"
    place.put(key, b"trial")
    if place.get(key) != b"trial":
        raise OutputError(f"{place.address} does not give back what was written to it")
    place.delete(key)
