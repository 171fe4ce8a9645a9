"""What lies around the package says the same as the package: versions, requirements, files."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LARGEST_WHEEL = 60_000_000  # bytes: what PyPI takes and a user waits for


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def bare(requirement: str) -> tuple[str, str]:
    """Name, as conda has it, and versions."""
    name, versions = re.match(r"([\w-]+)\s*(.*)", requirement).groups()  # type: ignore[union-attr]
    return {"torch": "pytorch"}.get(name, name), versions.replace(" ", "")


def test_the_conda_recipe_asks_for_what_the_package_asks_for() -> None:
    text = (ROOT / "conda/meta.yaml").read_text()
    assert f'version = "{PROJECT["version"]}"' in text
    plain = re.sub(r"\{\{.*?\}\}", "x", re.sub(r"\{%.*?%\}", "", text))
    recipe = yaml.safe_load(plain)
    asked = {bare(line) for line in recipe["requirements"]["run"]}
    assert asked == {*map(bare, PROJECT["dependencies"]), ("python", PROJECT["requires-python"])}


def test_the_citation_names_this_version() -> None:
    citation = load("CITATION.cff")
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["cff-version"] == "1.2.0"


def test_the_release_workflow_never_uploads_to_anyone() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text() + (
        ROOT / "scripts/release"
    ).read_text()
    assert not re.search(r"twine upload|gh-action-pypi-publish|gh release|id-token|secrets\.", text)
    workflow = load(".github/workflows/release.yml")
    assert workflow["permissions"] == {"contents": "read"}


@pytest.mark.parametrize(
    "name", sorted(p.name for p in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
)
def test_issue_templates_are_forms(name: str) -> None:
    form = load(f".github/ISSUE_TEMPLATE/{name}")
    if name == "config.yml":
        return
    assert {"name", "description", "body"} <= set(form)
    assert all(part["type"] in ("textarea", "input") for part in form["body"])


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_dockerfiles_copy_what_is_let_through(kind: str) -> None:
    text = (ROOT / f"docker/{kind}.Dockerfile").read_text()
    let = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied = {
        word
        for line in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE)
        for word in line.split()
    }
    assert copied <= let
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.slow
def test_the_wheel_holds_the_page_and_stays_small(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(
        ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*command, "--wheel-dir", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < LARGEST_WHEEL, wheel.stat().st_size
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    page = ROOT / "src/slimdiffsr/view/web"
    wanted = {f"slimdiffsr/view/web/{p.relative_to(page)}" for p in page.rglob("*") if p.is_file()}
    assert len(wanted) >= 14
    assert wanted <= names
