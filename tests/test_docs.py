"""The documentation says what is there: commands, options, presets, names, files."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.main import get_command

from slimdiffsr.cli import app
from slimdiffsr.degrade import degrade, image_generator
from slimdiffsr.settings.config import override
from slimdiffsr.settings.presets import PRESETS
from slimdiffsr.stages.pretraining import PRIORS, UNCERTAINTIES
from slimdiffsr.stages.teacher_config import TEACHERS
from slimdiffsr.upscale import model_names

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CARDS = sorted((ROOT / "src/slimdiffsr/weights").glob("*.md"))
COMMANDS: Any = get_command(app)


def commands_in(page: Path) -> list[list[str]]:
    """Each call of slimdiffsr, in blocks and in running text, as words."""
    text = page.read_text().replace("\\\n", " ")
    found = re.findall(r"^(?: {4})?(?:rio )?slimdiffsr (.*)$", text, re.MULTILINE)
    found += re.findall(r"(?<=[`;&] )slimdiffsr ([^`\n]*)|`slimdiffsr ([^`]*)`", text)
    lines = [line if isinstance(line, str) else line[0] or line[1] for line in found]
    return [shlex.split(line.split(" && ")[0], comments=True) for line in lines]


def options_of(command: Any) -> set[str]:
    return {"--help", *(o for p in command.params for o in (*p.opts, *p.secondary_opts))}


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=lambda page: page.name)
def test_commands_and_options_in_the_documentation_exist(page: Path) -> None:
    for words in commands_in(page):
        command, names = COMMANDS, list(words)
        while hasattr(command, "commands") and names and not re.match(r"-|\S*\|", names[0]):
            assert names[0] in command.commands, words
            command = command.commands[names.pop(0)]
        options = {word.split("=")[0] for word in words if word.startswith("--")}
        assert options <= options_of(command), words


def test_the_readme_shows_each_command() -> None:
    shown = {words[0] for words in commands_in(ROOT / "README.md")}
    elsewhere = {"demo", "import-dists", "import-lpips"}  # by make demo, and in docs/
    assert set(COMMANDS.commands) - elsewhere <= shown
    assert all(f"slimdiffsr {name}" in "".join(p.read_text() for p in PAGES) for name in shown)


@pytest.mark.parametrize(
    ("stage", "presets"),
    [
        ("uncertainty", UNCERTAINTIES),
        ("prior", PRIORS),
        ("teacher", TEACHERS),
        ("student", PRESETS),
    ],
)
def test_help_names_each_preset(stage: str, presets: dict[str, object]) -> None:
    command = COMMANDS.commands["train"].commands[stage]
    (text,) = (p.help for p in command.params if p.name == "config")
    named = set(re.findall(r"[\w-]+", text))
    if "-faithful" in named:
        named |= {f"{name}-faithful" for name in named}
    assert set(presets) <= named


def test_help_names_each_model_that_needs_no_download() -> None:
    (text,) = (p.help for p in COMMANDS.commands["upscale"].params if p.name == "model")
    assert set(model_names()) <= set(re.findall(r"[\w-]+", text))


def test_names_in_the_method_notes_exist() -> None:
    text = (ROOT / "docs/method.md").read_text()
    modules = {p.stem for p in (ROOT / "src/slimdiffsr").iterdir()} - {"weights", "__pycache__"}
    names = {n for n in re.findall(r"`([a-z_]+(?:\.\w+)+)", text) if n.split(".")[0] in modules}
    assert len(names) > 50
    for name in sorted(names):
        assert resolves(name), name


def resolves(name: str) -> bool:
    """Whether a dotted name is a module of ours, or something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(("slimdiffsr", *parts[:length])))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):  # what instances alone have
                source = inspect.getsource(found)
                return bool(re.search(rf"self\.{part}\b|^    {part}:", source, re.MULTILINE))
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [x for x in links if "://" not in x and not (page.parent / x).exists()]
    assert not missing


def test_the_architecture_page_places_each_module() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    source = ROOT / "src/slimdiffsr"
    for path in source.rglob("*.py"):
        place = path.relative_to(source)
        if place.stem.startswith("__"):
            continue
        assert f"`{place.stem}`" in page or f"`{place.stem}." in page, place


def test_the_recipe_of_the_walk_through_is_one() -> None:
    text = (ROOT / "docs/finetune.md").read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    config = override(PRESETS["tiny-x4"], {"recipe": tomllib.loads(block)})
    hr = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    lr = degrade(hr, config.recipe, [image_generator(1, 1)])
    assert lr.shape == (1, 3, 16, 16)
    assert lr.isfinite().all()
