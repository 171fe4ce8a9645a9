from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from slimdiffsr.bench.machine import cpu_name, describe_machine, package_version


def test_the_machine_is_told_with_its_processor_and_the_versions_that_are_there() -> None:
    about = describe_machine()
    assert f"torch {version('torch')}" in about["versions"]
    assert "None" not in about["versions"]
    assert f"{torch.get_num_threads()} threads on {cpu_name()}" in about["machine"]


def test_a_processor_is_called_by_its_model_where_the_system_tells_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = "processor\t: 0\nmodel name\t: Chip 9: fast\nprocessor\t: 1\nmodel name\t: other\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: told)
    assert cpu_name() == "Chip 9: fast"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "processor\t: 0\n")
    assert cpu_name() == platform.machine()


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert package_version("no-such-package-of-ours") is None
