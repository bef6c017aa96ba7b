"""The kernels compile to a GPU's machine code, which needs no GPU: the compiler refuses what the interpreter takes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

# In a process of its own: here the kernels were defined for the interpreter.
COMPILE = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from superscope.kernels.adam_rows.triton import _step
from superscope.kernels.bags.triton import _dot, _sum
from superscope.kernels.topk.triton import _maxima, _select

whole = {name: "*i64" for name in ("picks", "order", "starts", "columns", "offsets", "indices", "chosen")}
whole |= {name: "i32" for name in ("d", "n", "k", "width", "runs")}
for fn, constants in (
    (_sum, {"WIDE": tl.float32, "BLOCK": 1024, "ORDERED": True}),
    (_dot, {"WIDE": tl.float32, "BLOCK": 1024}),
    (_step, {"WIDE": tl.float32, "BLOCK": 1024, "UNIT": True, "MORE": True}),
    (_maxima, {"RUNS": 64, "RUN": 32}),
    (_select, {"DIGITS": 2, "BLOCK": 1024, "RUN": 32, "MADE": False}),
    (_select, {"DIGITS": 2, "BLOCK": 1024, "RUN": 0, "MADE": True}),
):
    number = "*bf16" if fn in (_maxima, _select) else "*fp32"
    whole["largest"] = "*i32"
    if constants.get("MADE"):
        whole["pre"] = "*i32"
    signature = {name: "constexpr" if name in constants else whole.get(name, number) for name in fn.arg_names}
    compiled = triton.compile(ASTSource(fn, signature, constants), target=GPUTarget("cuda", 90, 32))
    print(fn.__name__, len(compiled.asm["cubin"]))
"""


@pytest.mark.slow
def test_every_kernel_compiles_for_a_gpu() -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs the extra superscope[triton]")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "_sum",
        "_dot",
        "_step",
        "_maxima",
        "_select",
        "_select",
    ]
