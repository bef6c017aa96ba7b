"""What holds for every study: its report, saved and loaded, says when it was made, and every number has a word."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from superscope.core import Report, files
from superscope.measure import WORDS
from superscope.studies import STUDIES, Scan

SMALL = {
    "manifolds": {
        "source": "world:rings",
        "world": ("n=4", "d=12", "l0=1"),
        "tokens": 1500,
        "held_out": 1200,
        "n": 32,
        "k": 2,
        "steps": 30,
        "batch": 128,
        "groups": 2,
    },
    "evaluate": {"world": ("exactly_k", "n=16", "d=8", "k=2"), "rows": 400},
    "scan": {"tokens": 3000, "held_out": 600, "sites": ("resid_post.0",), "n": 24, "k": 3, "steps": 4, "batch": 64},
    "survey": {
        "layers": (0,),
        "roles": ("resid_post",),
        "control": False,
        "minutes": 1e-6,
        "tokens": 2000,
        "held_out": 600,
        "n": 24,
        "k": 3,
        "steps": 2,
        "seeds": 2,
        "batch": 64,
    },
    "layers": {
        "layers": (0,),
        "roles": ("resid_post",),
        "controls": (),
        "tokens": 2000,
        "held_out": 600,
        "n": 24,
        "k": 3,
        "steps": 2,
        "seeds": 2,
        "batch": 64,
    },
    "domains": {"sites": ("resid_post.0",), "tokens": 2000, "held_out": 2000, "n": 24, "k": 3, "steps": 2, "batch": 64},
    "dynamics": {"every": 7, "tokens": 2000, "held_out": 2000, "n": 16, "k": 3, "steps": 2, "batch": 64},
    "scale": {
        "widths": (4, 6, 8, 12),
        "layers": 1,
        "tokens": 2000,
        "held_out": 600,
        "n": 16,
        "k": 3,
        "steps": 2,
        "batch": 64,
    },
    "transfer": {"a": "pocket@resid_post.0", "b": "pocket@resid_post.1", "tokens": 2000}
    | {"held_out": 2000, "n": 24, "k": 3, "steps": 2, "batch": 64},
    "populations": {"layers": (0,), "rows": 200, "neighbours": 5, "maps": ("pca", "flat"), "control": False},
    "maximise": {"units": (3,), "length": 3, "fluency": (0.0, 0.3), "iterations": 2, "children": 2, "tokens": 2000}
    | {"control": False},
    "sites": {},
    "harvest": {"tokens": 600, "sites": ("resid_post.0",)},
    "train": {"source": "world:exactly_k", "n": 16, "steps": 3, "batch": 32, "held_out": 64},
    "frontier": {
        "source": "world:exactly_k",
        "n": 16,
        "ks": (1, 2, 3),
        "seeds": 2,
        "steps": 3,
        "batch": 32,
        "held_out": 64,
    },
    "count": {"source": "world:uniform", "world": ("n=24", "d=12", "l0=1"), "rows": 3000, "n": 48, "k": 1, "steps": 10},
    "calibrate": {"families": ("uniform",), "short": True, "rows": 9000, "budget": 0.01},
    "sweep": {"study": "bounds", "vary": ("d=8,16",), "given": ("n=32",), "executor": "inline"},
    "toy": {"n": 4, "d": 2, "steps": 20, "batch": 16, "seeds": (0,), "densities": (0.5,)},
    "phase": {"size": 2, "steps": 40, "restarts": 2},
    "toy-correlation": {
        "d": 2,
        "size": 2,
        "ratios": (1, 2),
        "correlations": (0.0, 0.5),
        "seeds": 2,
        "steps": 20,
        "batch": 16,
    },
    "toy-scaling": {"n": 12, "widths": (2, 3, 4), "seeds": 1, "steps": 20, "batch": 16},
    "toy-robustness": {"n": 6, "d": 3, "densities": (1.0, 0.6, 0.3), "steps": 20, "batch": 16},
    "bounds": {"n": 32, "d": 8, "k": 2},
    "theory": {},
    "recover": {"trials": 4, "ks": (1, 2)},
    "plan": {"latents": 64, "tokens": 1e6, "d": 32},
    "convert": {"to": "sparsify"},
    "neuronpedia": {"batch": 10},
    "interpret": {},
    "judge": {"world": ("exactly_k", "n=16", "d=8", "k=2"), "rows": 256},
    "compare": {"rows": 200},
    "bench": {
        "tokens": 200,
        "fisher_tokens": 300,
        "draws": 1,
        "towards": ("def f():\n    return 1", "raise ValueError(x)"),
        "away": ("the end of the line is not read", "a list of all values that are there"),
        "targets": ("own",),
        "doses": (0.2,),
        "controls": 2,
        "new_tokens": 2,
        "matrix": False,
    },
    "concept": {"concepts": ("errors",), "texts": 12, "sites": ("resid_post.0",), "steer": False},
    "steer": {
        "tokens": 300,
        "fisher_tokens": 100,
        "draws": 1,
        "prompts": ("The", "If a"),
        "strengths": (0.0, 1.0),
        "new_tokens": 2,
        "site": "resid_post.2",
        "metered": 64,
        "controls": 1,
    },
    "ablate": {
        "tokens": 300,
        "site": "resid_post.2",
        "ablations": ("project_out", "leace"),
        "new_tokens": 2,
        "metered": 64,
        "controls": 1,
    },
    "spare": {"worlds": ("uniform:n=16,d=8,l0=1",), "features": 2, "rows": 2000},
    "sycophancy": {"items": 80, "layers": (2,), "choosing": 20, "reporting": 20, "other": 1, "controls": 2},
    "compress": {
        "source": "world:zipf",
        "world": ("n=24", "d=8", "l0=1"),
        "sparsities": (0.5,),
        "ranks": (4,),
        "features": 8,
    },
    "perturb": {"source": "world:toy_networks", "world": ("n=24", "d=12", "steps=200"), "directions": 8, "windows": 4},
    "collateral": {"source": "world:toy_networks", "world": ("n=24", "d=12", "steps=200"), "controls": 2},
    "reproduce": {"only": ("E4",)},
}


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, dict]:
    matrix = tmp_path / "matrix.safetensors"
    files.write_tensors(matrix, {"W": torch.randn(24, 8, generator=torch.Generator().manual_seed(0))})
    from superscope.dictionaries import TopK

    TopK(d=8, n=24, k=2, seed=0).save(tmp_path / "sae")
    given = {command: dict(values) for command, values in SMALL.items()}
    for command in ("theory", "recover"):
        given[command]["dictionary"] = str(matrix)
    for command in ("judge", "evaluate"):
        given[command]["dictionary"] = str(tmp_path / "sae")
    given["neuronpedia"] |= {"scan": str(tmp_path / "scan"), "target": str(tmp_path / "pages")}
    given["interpret"]["scan"] = str(tmp_path / "scan")
    given["compare"]["sources"] = (str(tmp_path / "sae"), str(matrix))
    given["convert"] |= {"source": str(tmp_path / "sae"), "target": str(tmp_path / "copy")}
    return given


@pytest.mark.parametrize("command", [entry.command for entry in STUDIES])
def test_its_report_says_when_it_was_made_and_every_number_has_a_word(
    command: str, settings: dict[str, dict], tmp_path: Path
) -> None:
    entry = next(entry for entry in STUDIES if entry.command == command)
    if command in ("neuronpedia", "interpret"):
        Scan(**settings["scan"]).run(tmp_path / "scan")
    study = entry.load()(**settings[command])
    made = study.run(tmp_path / "run")
    report = Report.load(tmp_path / "run")
    assert report.environment == made.environment
    assert report.environment["created"] <= report.environment["finished"]
    assert report.environment["seconds"] >= 0
    assert report.environment["python"]
    assert report.kind == study.kind
    assert {m.name for m in report.measurements} <= WORDS.keys()
