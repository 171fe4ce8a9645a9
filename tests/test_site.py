"""The documentation site: it builds without warnings, says all, and fetches nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from students import write_lpips
from typer.main import get_command

from slimdiffsr.cli import app

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_fetches_nothing(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        tags = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", page.read_text())
        outside = [tag for tag in tags if re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag)]
        assert not [tag for tag in outside if 'rel="canonical"' not in tag], page


@pytest.mark.slow
def test_the_site_has_each_command_and_what_the_package_exports(site: Path) -> None:
    commands: Any = get_command(app)
    text = (site / "reference/commands.html").read_text()
    for name, command in commands.commands.items():
        for sub in getattr(command, "commands", None) or [""]:
            assert f"slimdiffsr {name} {sub}".strip() in text
    python = (site / "reference/python.html").read_text()
    for name in ("Upscaler", "upscale_scene", "SceneOptions", "show", "RasterError"):
        assert name in python


@pytest.mark.slow
def test_links_on_the_site_lead_somewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        for target in re.findall(r'<a [^>]*href="([^"#]+)[^"]*"', page.read_text()):
            if "://" not in target and not target.startswith(("mailto:", "data:")):
                assert (page.parent / target).exists(), (page.name, target)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMDIFFSR_SMALL", "1")  # the size of the generated data
    monkeypatch.setenv("SLIMDIFFSR_LPIPS", str(write_lpips(tmp_path / "lpips.safetensors")))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert any("text/html" in o.get("data", {}) or "image/png" in o.get("data", {}) for o in shown)


def test_there_are_three_notebooks_and_they_are_stored_without_outputs() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["models", "scene", "train"]
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text())["cells"]
        assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
