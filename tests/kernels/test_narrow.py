"""What `scripts/narrow` sets is obeyed: every library that multiplies runs as on a processor with AVX2 alone."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NARROW = Path(__file__).parents[2] / "scripts" / "narrow"

PROBE = """
import json, numba, numpy, torch
from numba.core.registry import cpu_target
from superscope.kernels import can_screen, screen
ones = torch.ones(64, 64)
with torch.backends.mkl.verbose(torch.backends.mkl.VERBOSE_ON):
    ones @ ones
with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
    torch._int_mm(ones.to(torch.int8), ones.to(torch.int8))
_, name, features = cpu_target.target_context.codegen().magic_tuple()
# One product many times over: with MKL's loops for other makers' processors its bits depend on where it begins.
generator = torch.Generator().manual_seed(0)
a, b = torch.randn(3, 64, generator=generator), torch.randn(64, 5, generator=generator)
stack = torch.bmm(a.expand(4, 3, 64).clone(), b.expand(4, 64, 5).clone())
print(json.dumps({
    "torch": torch.backends.cpu.get_cpu_capability(),
    "numba": [name, sorted(f for f in features.split(",") if "512" in f or "vnni" in f or "amx" in f)],
    "numpy": numpy._core._multiarray_umath.__cpu_features__.get("X86_V4", False),
    "exact int8": screen.exact_products(),
    "screens": can_screen("cpu"),
    "alike": all(torch.equal(stack[0], other) for other in stack),
}))
"""


def probed(**settings: str) -> tuple[str, dict[str, object]]:
    """What libraries say of themselves under the script, and what was asked of them."""
    command = [str(NARROW), sys.executable, "-W", "ignore", "-c", PROBE]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings, check=True)
    *words, last = done.stdout.strip().splitlines()
    return "\n".join(words), json.loads(last)


@pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("bash") is None,
    reason="would have checked that libraries run narrower than this processor: needs x86-64 and bash",
)
def test_every_library_runs_with_avx2_alone() -> None:
    pytest.importorskip("numba", reason="would have checked what loops are compiled for: install superscope[fast]")
    words, found = probed(SUPERSCOPE_INTEL="1")
    assert found["torch"] == "AVX2"
    assert found["numba"] == ["haswell", []]
    assert not found["numpy"]
    assert "isa:Intel AVX2\n" in words
    assert "AVX512" not in words
    assert not found["exact int8"]
    assert not found["screens"]
    if shutil.which("cc") is None:
        return
    # The words by which MKL names its loops for processors of other makers.
    words, found = probed(SUPERSCOPE_INTEL="")
    assert "Intel(R) Architecture processors" in words
    assert not found["alike"]
