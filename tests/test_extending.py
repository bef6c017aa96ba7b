"""Adding a member of a family takes one file and one line: tried from outside, on a copy of the package."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")

NEW = {
    # file: (its text, the line in the __init__ beside it)
    "dictionaries/sae/top_two.py": (
        '''
from typing import final

from ...core import SparseCode
from .base import SAE


@final
class TopTwo(SAE):
    """f = the two largest, with their values times a factor.

    Args:
        d: dimension of x.
        n: number of latents.
        factor: on the values.
        seed: of the random start.
    """

    def __init__(self, d: int, n: int, factor: float = 1.0, seed: int = 0) -> None:
        super().__init__(d, n, factor=factor, seed=seed)
        self.factor = factor

    def sparsify(self, pre):
        values, indices = pre.topk(2, dim=-1)
        return SparseCode(self.factor * values.relu(), indices, pre.shape[-1])
''',
        "from .top_two import TopTwo as TopTwo",
    ),
    "dictionaries/classical/mean.py": (
        '''
from dataclasses import dataclass
from typing import ClassVar, final

from ...core import Dictionary, SparseCode
from .learner import Learner
from .rows import training_rows


@final
@dataclass(frozen=True, eq=False)
class Mean(Learner):
    """The rows' mean, and their first n as atoms that are never used."""

    name: ClassVar[str] = "mean"

    dictionary: Dictionary

    @classmethod
    def fit(cls, source, n: int, *, rows: int = 100, seed: int = 0):
        x = training_rows("Mean", source, rows, seed)
        return cls(Dictionary(x[:n], x.mean(0)))

    def encode(self, x):
        return SparseCode(x.new_zeros(*x.shape[:-1], 1), x.new_zeros(*x.shape[:-1], 1).long(), self.dictionary.n)
''',
        "from .mean import Mean as Mean",
    ),
    "recovery/nearest.py": (
        '''
from dataclasses import dataclass

import torch

from ..core import Dictionary
from .problem import SolvedRows, RecoveryCoder


@dataclass(frozen=True)
class Nearest(RecoveryCoder):
    """The k atoms with the largest products."""

    dictionary: Dictionary
    k: int

    label = "the nearest"

    def _rows(self, x, atoms, total):
        values, indices = (x @ atoms.unit.T).topk(self.k, dim=1)
        return SolvedRows(values, indices, torch.ones(len(x), dtype=torch.bool), 1)
''',
        "from .nearest import Nearest as Nearest",
    ),
    "toys/offset.py": (
        '''
from dataclasses import dataclass

from .family import Family


@dataclass(frozen=True)
class Offset(Family):
    """Linear, with or without an offset.

    Args:
        n: features.
        d: dimensions.
        scale: of the output.
    """

    n: int
    d: int
    scale: float = 1.0

    name = "offset"

    def shapes(self):
        return {"W": (self.n, self.d)}

    def hidden(self, parameters, f):
        return f @ parameters["W"]

    def output(self, parameters, h):
        return self.scale * h @ parameters["W"].mT

    def atoms(self, parameters):
        return parameters["W"]

    def activation_is_relu(self):
        return False
''',
        "from .offset import Offset as Offset",
    ),
    "features/lonely.py": (
        '''
from dataclasses import dataclass

import torch

from .distribution import FeatureDistribution
from .magnitudes import UNIT, Magnitude


@dataclass(frozen=True)
class Lonely(FeatureDistribution):
    """One feature in every row.

    Args:
        n: features.
        magnitude: the law of an active feature.
    """

    n: int
    magnitude: Magnitude = UNIT

    @property
    def noise(self):
        return 2

    def knobs(self):
        return ()

    def draw(self, u, knobs=None):
        f = torch.zeros(*u.shape[:-1], self.n).to(u)
        return f.scatter(-1, (u[..., :1] * self.n).long(), self.magnitude.quantile(u[..., 1:]))

    def gates(self):
        return torch.eye(self.n, dtype=torch.float64) / self.n

    def _supports(self):
        law = torch.zeros(2**self.n, dtype=torch.float64)
        law[2 ** torch.arange(self.n)] = 1 / self.n
        return law
''',
        "from .lonely import Lonely as Lonely",
    ),
    "measure/counts/alive.py": (
        '''
from ...core import Measurement
from .base import Counter


class Alive(Counter):
    """Latents of the first dictionary that are ever active."""

    name = "alive_latents"

    def wants(self, n, k, seeds):
        return ()

    def count(self, seen, wanted):
        first = next(iter(seen.learned))
        alive = float(seen.alive(first).sum())
        yield Measurement(name=self.name, value=alive, unit="latents", n=first.n, of="latents")
''',
        "from .alive import Alive as Alive",
    ),
    "studies/networks/readings/longest.py": (
        '''
from ....core import Measurement
from .base import Reading


class Longest(Reading):
    """The longest held-out row."""

    name = "the longest row"

    def read(self, seen, findings):
        longest = max(float(batch.x.norm(dim=1).max()) for batch in seen.held)
        made = Measurement(name="longest_row", value=longest, unit="activation", n=len(seen.other), of="rows")
        findings.add(made, at=seen.at)
        findings.row("longest", **seen.at, norm=longest)

    def sentences(self, findings, sites):
        return [f"The longest row has norm {findings['longest_row', sites[0]].value:.1f}."]
''',
        "from .longest import Longest as Longest",
    ),
    "studies/geometry/angle.py": (
        '''
from dataclasses import dataclass
from typing import ClassVar

from ...core import Answer, Findings, Measurement
from ..study import Progress, Study


@dataclass(frozen=True)
class Angle(Study):
    """What is the angle between two directions?"""

    kind: ClassVar[str] = "angle"

    degrees: float = 60.0
    """Of it."""

    def answer(self, run):
        yield Progress("Measuring", 0, 1)
        made = Measurement(name="angle", value=self.degrees, unit="degrees", n=2, of="directions")
        return Answer(title=f"An angle of {self.degrees:g}", findings=Findings([made]))
''',
        '    Entry("angle", "geometry.angle", "Angle", "What is the angle between two directions?"),',
    ),
}
# Studies are listed, not imported: the table is read by `superscope --help`, which loads none of them.
LISTED = {"studies/geometry/angle.py": ("studies/__init__.py", "STUDIES = (\n")}
COMMANDS = {
    "study": "angle --degrees 45",
    "scan": "scan --sites resid_post.1 --tokens 3000 --held-out 600 --n 24 --k 3 --steps 4 --batch 64 --seeds 2",
    "architecture": "train world:lonely --world n=6 --world d=4 --architecture top-two --set factor=2 --n 8 --steps 3 "
    "--batch 16 --held-out 64",
    "learner": "train rows.npy --architecture mean --n 3 --held-out 20 --set rows=30",
    "solver": "recover W.npy --solver Nearest --ks 1 --trials 5 --signed",
    "family": "toy --family offset --set scale=0.5 --n 4 --d 2 --densities 0.3 --seeds 0 --steps 5 --record 0",
}


def test_the_table_names_every_member() -> None:
    table = runpy.run_path(str(ROOT / "scripts/families.py"))["table"]()
    assert table in PAGE, "docs/extending.md: put what `python scripts/families.py` prints in place of its table"


def test_a_member_is_one_file_and_one_line(tmp_path: Path) -> None:
    package = tmp_path / "superscope"
    shutil.copytree(
        ROOT / "superscope", package, copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__")
    )
    for name, (text, line) in NEW.items():
        (package / name).write_text(f"from __future__ import annotations\n{text}", encoding="utf-8")
        init, above = (package / name).parent / "__init__.py", r"^(?=from \.[a-z])"
        if name in LISTED:
            init, above = package / LISTED[name][0], rf"(?<={re.escape(LISTED[name][1])})"
        before = init.read_text(encoding="utf-8")
        init.unlink()
        # Above the first of its siblings, as an editor would put it.
        init.write_text(re.sub(above, lambda _: f"{line}\n", before, count=1, flags=re.M), encoding="utf-8")  # noqa: B023
    random = np.random.default_rng(0)
    np.save(tmp_path / "rows.npy", random.normal(size=(100, 4)).astype("float32"))
    np.save(tmp_path / "W.npy", random.normal(size=(8, 4)).astype("float32"))
    script = [
        "import contextlib, io, runpy",
        "from superscope.cli import main",
        f"print(runpy.run_path({str(ROOT / 'scripts/families.py')!r})['table']())",
        "for command, folder in " + repr([(command, name) for name, command in COMMANDS.items()]) + ":",
        "    assert main([*command.split(), '--out', folder]) == 0, command",
        "for command in ('train', 'recover', 'toy'):",
        "    assert main([command, '--help']) == 0",
        "assert main(['train', 'x', '--architecture', 'toptwo', '--set', 'help']) == 0",
        "from superscope import dictionaries",
        "from superscope.testing import check_coder, example",
        "assert dictionaries.TopTwo in dictionaries.ARCHITECTURES",
        "check_coder(lambda: example(dictionaries.TopTwo))",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(script)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    for member in ("`TopTwo`", "`Mean`", "`Nearest`", "`Offset`", "`Lonely`", "`Alive`", "`Longest`", "`angle`"):
        assert member in done.stdout.split("usage:")[0]
    for shown in ("toptwo", "mean ", "Nearest", "offset", "factor: on the values. (default 1.0)"):
        assert shown in done.stdout, shown
    reports = {name: json.loads((tmp_path / name / "report.json").read_text(encoding="utf-8")) for name in COMMANDS}
    assert reports["architecture"]["title"] == "TopTwo of lonely"
    assert reports["study"]["title"] == "An angle of 45"
    assert reports["learner"]["title"] == "Mean of rows"
    assert any(m["at"].get("solver") == "Nearest" for m in reports["solver"]["measurements"])
    assert reports["family"]["title"] == "4 features in 2 dimensions, 1 offset models"
    for name in ("alive_latents", "longest_row"):
        assert any(m["name"] == name for m in reports["scan"]["measurements"]), name
    assert any(sentence.startswith("The longest row has norm") for sentence in reports["scan"]["findings"])
    assert "longest" in reports["scan"]["tables"]
    page = (tmp_path / "scan/report.html").read_text(encoding="utf-8")
    packed = re.search(r'<script type="application/gzip" id="run">([^\n<]*)', page)
    assert packed is not None
    shown = {m["name"] for m in json.loads(gzip.decompress(base64.b64decode(packed[1])))["measurements"]}
    assert {"alive_latents", "longest_row"} <= shown
    about = json.loads((tmp_path / "architecture/sae/about.json").read_text(encoding="utf-8"))
    assert (about["architecture"], about["arguments"]["factor"]) == ("TopTwo", 2.0)


@pytest.mark.parametrize("folder", sorted({str(Path(name).parent) for name in NEW if name not in LISTED}))
def test_a_family_is_registered_by_its_imports_alone(folder: str) -> None:
    text = (ROOT / "superscope" / folder / "__init__.py").read_text(encoding="utf-8")
    assert "__all__" not in text
    assert "members(" in text or "one_of_each(" in text
