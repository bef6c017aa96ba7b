"""The command line: quick to answer, clear when it refuses, resumable when interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from superscope import __version__
from superscope.cli import main
from superscope.cli.command import new_folder
from superscope.cli.refusal import _CAUSES, require_writable, sentence
from superscope.studies import Bounds, Compress, Scan
from superscope.studies.study import Study

TINY = [
    "--tokens",
    "3000",
    "--held-out",
    "900",
    "--context",
    "32",
    "--n",
    "24",
    "--k",
    "3",
    "--seeds",
    "2",
    "--batch",
    "256",
]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the pocket model's tokenizer with a tiny random model."""
    import torch
    import transformers

    from superscope.capture import pocket

    folder = tmp_path_factory.mktemp("tiny")
    _, tokenizer = pocket.load()
    config = transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, n_positions=64, vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = transformers.GPT2LMHeadModel(config)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_help_is_light() -> None:
    """What makes help slow is importing; the heavy ones must not be there."""
    script = (
        "import sys; from superscope.cli import main; main(['--help']);"
        "heavy = [m for m in ('torch', 'transformers', 'tyro', 'rich', 'pyarrow', 'scipy') if m in sys.modules];"
        "sys.exit(', '.join(heavy) or None)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "superscope scan" in done.stdout


def test_version_and_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"superscope {__version__}\n"
    assert main(["scna"]) == 2
    assert "there is no command 'scna'. Did you mean `superscope scan`?" in capsys.readouterr().err


def test_help_of_a_command_lists_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("--sites", "--text", "--device", "--control", "--out", "--json", "--seeds", "Tokens to learn from"):
        assert option in text


def test_unknown_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "--sits", "a"]) == 2
    said = capsys.readouterr()
    assert "--sits" in said.err
    assert said.out == ""


def test_a_value_of_another_kind_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["bounds", "--n", "5", "--d", "five"], "--d: 'five' is no whole number"),
        (["bounds", "--n", "5", "--d", "2", "--eps", "x"], "--eps: 'x' is no number"),
        (["toy", "--n", "5", "--d", "2", "--estimator", "tie"], "--estimator"),
        (["bounds", "--n", "5"], "--d"),
    ):
        assert main(arguments) == 2
        said = capsys.readouterr()
        assert words in said.err
        assert "int()" not in said.err
        assert f"superscope {arguments[0]} --help" in said.err
        assert said.out == ""


def test_a_refusal_is_one_sentence_and_exit_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["scan", "--seeds", "1", "--out", str(tmp_path / "run")]) == 2
    assert main(["scan", "--sites", "transformer.h.9", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr()
    assert "superscope scan: seeds must be at least 2" in said.err
    assert "Did you mean transformer.h." in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("study", "begin"),
    [
        (Compress("world:zipf"), "compress-world-zipf-"),
        (Compress("models/mine", dictionary="runs/other/sae"), "compress-mine-"),
        (Scan(model="models/mine"), "scan-mine-"),
        (Bounds(n=8, d=4), "bounds-2"),
    ],
)
def test_a_new_folder_has_the_name_of_what_is_studied(study: Study, begin: str) -> None:
    assert new_folder(study.kind, study).name.startswith(begin)


def test_json_is_the_report(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [*TINY, "--steps", "3", "--sites", "transformer.h.0", "--out", str(tmp_path / "run"), "--json", "--quiet"]
    assert main(["scan", str(model), *options]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == json.loads((tmp_path / "run" / "report.json").read_text())
    assert said.err == ""
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


def test_interrupted_from_the_keyboard(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    command = ["scan", str(model), *TINY, "--sites", "transformer.h.*", "--steps", "60", "--out", out]
    running = subprocess.Popen(
        [sys.executable, "-m", "superscope.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        # A test run in the background of a shell inherits an ignored interrupt, and would pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    first = tmp_path / "run" / "saes" / "trained" / "transformer.h.0" / "seed0" / "training.json"
    while not first.exists():
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    try:
        said, err = running.communicate(timeout=3)
    except subprocess.TimeoutExpired:
        # Python drops an interrupt that falls into a finaliser, as a person who presses the keys again knows.
        if running.poll() is None:
            running.send_signal(signal.SIGINT)
        said, err = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "Traceback" not in err
    assert f"Interrupted. What was finished is kept in {tmp_path / 'run'}; resume with: superscope scan" in err
    assert said == ""

    assert main(command) == 0
    done = capsys.readouterr()
    assert f"Report: {tmp_path / 'run' / 'report.html'}" in done.out
    # What is said on the way is all that is said, each stage as it begins and as it ends.
    lines = done.err.splitlines()
    assert all(line.isprintable() and len(line) <= 100 and line[:8].strip()[0].isdigit() for line in lines), lines
    for stage in ("Reading the text", "Recording activations", "Learning transformer.h.1", "Measuring transformer.h.1"):
        assert [f"{stage}: done in" in line for line in lines if stage in line][-1], stage
    assert lines[-1][10:].startswith("Finished in ")


def test_what_stands_in_the_way_is_said_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    for out in (file, file / "run"):
        assert main(["bounds", "--n", "5", "--d", "2", "--out", str(out)]) == 2
        said = capsys.readouterr()
        assert said.err == (
            f"superscope bounds: {file} is a file, so no run can be kept there. Choose a folder with --out.\n"
        )
    assert file.read_text() == "mine"


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The superuser may write anywhere, so what the system answers is put in its mouth.
    monkeypatch.setattr("superscope.cli.refusal.os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(PermissionError, match=r"may not be written to by this user.* Choose another folder with --out"):
        require_writable(tmp_path / "run")
    (tmp_path / "own").mkdir()
    require_writable(tmp_path / "own" / "run")


@pytest.mark.parametrize("number", sorted(_CAUSES))
def test_errors_of_the_system_are_sentences_with_a_fix(number: int) -> None:
    said = sentence(OSError(number, os.strerror(number), "x/y"))
    assert "x/y" in said
    assert said.endswith(".")
    assert "Errno" not in said
    assert len(said.split(". ")) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "x", "--architecture", "JumpReLU", "--set", "help"], "bandwidth: "),
        (["train", "x", "--architecture", "skip-transcoder", "--set", "help"], "k: latents kept per row"),
        (["train", "world:zipf", "--world", "help"], "alpha: exponent, at least 0"),
        (["toy", "--family", "residual-mlp", "--set", "help"], "width: of the residual stream"),
    ],
)
def test_what_there_is_to_set_is_told_and_nothing_run(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 0
    assert says in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_help_lists_the_settings_of_every_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    for line in ("jumprelu  ", "k, coefficient=1.0, bandwidth=0.5, warmup=0.1", "ksvd  ", "crosscoder  "):
        assert line in shown
