"""Tensors on disk: as safetensors' own library would lay them out, one at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save
from students import seeded

from slimdiffsr.files.tensors import encode, write_tensors

TYPES = (
    torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip


def test_files_are_laid_out_as_the_library_lays_them_out(tmp_path: Path) -> None:
    tensors = {
        f"{name}{number}": (100 * torch.rand(3, number + 1, generator=seeded(number))).to(dtype)
        for number, dtype in enumerate(TYPES)
        for name in ("b", "a")
    }
    tensors |= {"empty": torch.zeros(0, 4), "one": torch.tensor(3.0)}
    theirs, ours = save(tensors, {"k": "v"}), encode(tensors, {"k": "v"})

    def parts(data: bytes) -> tuple[object, bytes]:
        size = int.from_bytes(data[:8], "little")
        return json.loads(data[8 : 8 + size]), data[8 + size :]

    assert parts(ours) == parts(theirs)
    write_tensors(tmp_path / "file", tensors, {"k": "v"})
    assert (tmp_path / "file").read_bytes() == ours
    for name, value in load_file(tmp_path / "file").items():
        assert torch.equal(value, tensors[name])


def test_views_are_written_as_what_they_show(tmp_path: Path) -> None:
    whole = torch.arange(24.0).view(2, 3, 4)
    views = {"t": whole.transpose(0, 2), "s": whole[:, 1:, ::2], "same": whole, "again": whole}
    write_tensors(tmp_path / "file", views, {})
    assert all(torch.equal(v, views[k]) for k, v in load_file(tmp_path / "file").items())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by /proc")
def test_writing_holds_no_second_copy(tmp_path: Path) -> None:
    code = (
        "import re, sys, torch\n"
        "from pathlib import Path\n"
        "from slimdiffsr.files.tensors import write_tensors\n"
        "tensors = {str(n): torch.ones(2**22) for n in range(16)}\n"  # 256 MiB in pieces of 16
        "status = Path('/proc/self/status').read_text\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', status())[1]) / 2**10\n"
        "before = peak()\n"
        "write_tensors(Path(sys.argv[1]), tensors, {})\n"
        "print(peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "file"], capture_output=True, text=True
    )
    assert float(done.stdout) < 64, done.stderr
