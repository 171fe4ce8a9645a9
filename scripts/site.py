"""What mkdocs asks while it builds the site: pages made from the code, and links that leave docs/.

Named in mkdocs.yml; the functions' names are mkdocs's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from typer.main import get_command

from slimdiffsr.cli import app

ROOT = Path(__file__).resolve().parents[1]
CARDS = ROOT / "src/slimdiffsr/weights"
# Pages of the repository that are elsewhere on the site.
MOVED = {"CHANGELOG.md": "changes.md", "README.md": "index.md"}


def on_config(config: Any) -> Any:
    """Leave out of the navigation what is not written yet."""
    made = {
        "reference/commands.md",
        "changes.md",
        *(f"models/{card.name}" for card in CARDS.glob("*.md")),
    }
    there = made | {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")}
    config.nav = [found for entry in config.nav if (found := _known(entry, there)) is not None]
    return config


def _known(entry: dict[str, Any], there: set[str]) -> dict[str, Any] | None:
    ((title, place),) = entry.items()
    if isinstance(place, str):
        return entry if place in there else None
    inside = [found for part in place if (found := _known(part, there)) is not None]
    return {title: inside} if inside else None


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made from the code."""
    pages = {
        "reference/commands.md": commands_page(),
        "changes.md": (ROOT / "CHANGELOG.md").read_text(),
    }
    pages |= {f"models/{card.name}": card.read_text() for card in CARDS.glob("*.md")}
    for place, text in pages.items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave docs/ lead to the same page on the site, or become plain words."""
    folder = (ROOT / "docs" / page.file.src_uri).parent
    up = "../" * page.file.src_uri.count("/")

    def moved(match: re.Match[str]) -> str:
        words, target = match.groups()
        place = (folder / target.split("#")[0]).resolve()
        if "://" in target or target.startswith("#") or place.is_relative_to(ROOT / "docs"):
            return words if place.is_dir() else match[0]  # a folder has no page
        if place.parent == CARDS:
            return f"[{words}]({up}models/{place.name})"
        return f"[{words}]({up}{MOVED[place.name]})" if place.name in MOVED else words

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", moved, markdown)


# ---------------------------------------------------------------------------------------------
# Commands


def commands_page() -> str:
    """Each command with its arguments and options, as ``--help`` tells them."""
    command: Any = get_command(app)
    head = (
        "# Commands\n\nMade from the code. Errors are one sentence on stderr with exit status 2; 1 if some "
        "of several inputs failed; 130 after Ctrl-C. `slimdiffsr --install-completion` teaches your shell "
        "to complete them.\n"
    )
    names = command.list_commands(None)
    return head + "".join(
        _section(command.commands[name], f"slimdiffsr {name}", 2) for name in names
    )


def _section(command: Any, name: str, level: int) -> str:
    parts = [f"\n{'#' * level} {name}\n", (command.help or "").strip() + "\n"]
    for sub in getattr(command, "commands", {}).values():
        parts.append(_section(sub, f"{name} {sub.name}", level + 1))
    shown = [p for p in command.params if p.name != "help" and not getattr(p, "hidden", False)]
    if shown and not hasattr(command, "commands"):
        usage = " ".join(_name(p) for p in shown if p.param_type_name == "argument")
        parts.append(f"```text\n{name} [OPTIONS] {usage}\n```\n")
        rows = "".join(_row(p) for p in shown)
        parts.append(f"| | | default |\n| --- | --- | --- |\n{rows}")
    return "\n".join(parts)


def _row(parameter: Any) -> str:
    default = parameter.default
    plain = isinstance(default, (str, int, float, Path)) and not isinstance(default, bool)
    told = f"`{default}`" if plain and str(default) else ""
    text = (getattr(parameter, "help", None) or "").replace("|", "\\|").replace("\n", " ")
    return f"| `{_name(parameter)}` | {text} | {told} |\n"


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return ", ".join((*parameter.opts, *parameter.secondary_opts))
