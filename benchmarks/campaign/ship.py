"""Put weights into the package: python ship.py NAME FILE [--towards FAITHFUL --amount A].

``--towards`` mixes: A of the way from the faithful weights to FILE (see ``interpolate_models``). Half
precision. Prints the line for ``slimdiffsr.files.students.BUNDLED``.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import torch

from slimdiffsr.files.students import interpolate_models, load_model, save_model

WEIGHTS = Path(__file__).parents[2] / "src/slimdiffsr/weights"
ABOUT = {"licence": "Apache-2.0", "card": "see the model card beside this file"}


def main() -> None:
    """Write one shipped model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("file", type=Path)
    parser.add_argument("--towards", type=Path)
    parser.add_argument("--amount", type=float, default=1.0)
    args = parser.parse_args()
    target = WEIGHTS / f"{args.name}.safetensors"
    if args.towards is not None:
        digest = interpolate_models(
            args.towards, args.file, args.amount, target, name=args.name, about=ABOUT
        )
    else:
        loaded = load_model(str(args.file))
        kept = {k: v for k, v in loaded.metadata.items() if k in ("step", "train_config")}
        config = dataclasses.replace(loaded.config, name=args.name)
        digest = save_model(target, loaded.model, config, ABOUT | kept, torch.float16)
    sys.stdout.write(f'    "{args.name}": "{digest}",\n')


if __name__ == "__main__":
    main()
