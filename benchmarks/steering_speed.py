"""What does an edit cost, what do strengths save that share the pass below the site, and how do others add a vector?

CPU time of one thread, alternating, medians. Of ours alone: a forward pass of the pocket model over windows of 64
tokens with and without `Add` at its middle block; a dose-response curve of 16 strengths at that block, shared and
apart. Against steering-vectors, repeng and pyvene, each with a copy of one llama of its own: a vector is added at every
token behind the middle block, and the model reads windows, or writes 16 tokens after each of 8 prompts.

    scripts/peers --only steering                      # once: an environment with theirs and ours
    PYTHONPATH=. OMP_NUM_THREADS=1 .venv-peers-steering/bin/python benchmarks/steering_speed.py [--rounds 40] [--short]
"""

from __future__ import annotations

import argparse
import copy
import io
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from statistics import median
from typing import Any

import torch
import transformers
from results import available, claim, commit, report
from timing import Contest

from superscope import capture
from superscope.capture import Subject
from superscope.intervene import dose_response, edited, generate
from superscope.intervene.edits import Add

PEERS = {"steering-vectors": "steering_vectors", "repeng": "repeng", "pyvene": "pyvene"}
WINDOWS, TOKENS, NEW = 8, 64, 16


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def ratio(work: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Median, least and most of the CPU time of one over that of the other, each round's two side by side."""
    work(), other()
    ratios = [cpu_seconds(work) / cpu_seconds(other) for _ in range(rounds)]
    return median(ratios), min(ratios), max(ratios)


def alone(rounds: int) -> list[str]:
    """What an edit costs and what sharing saves."""
    subject = capture.load("pocket")
    count = len(capture.blocks(subject.model))
    site = f"resid_post.{(count - 1) // 2}"
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, subject.model.config.vocab_size, (WINDOWS, TOKENS), generator=generator)
    edit = Add(torch.randn(subject.d, generator=generator))

    @torch.no_grad()
    def plain() -> None:
        subject.model(input_ids=ids, use_cache=False)

    def steered() -> None:
        with edited(subject, {site: edit}):
            plain()

    prompt, answer = ids[0, :56].tolist(), ids[0, 56:].tolist()
    strengths = [i / 8 for i in range(16)]

    def curve(share: bool) -> None:
        dose_response(subject, prompt, answer, site=site, edit=edit, strengths=strengths, share=share)

    lines = []
    for what, other, goal, (middle, least, most) in (
        ("a pass with an edit", "a pass without", "at most 1.03", ratio(steered, plain, rounds)),
        (
            "16 strengths apart",
            "16 that share the pass below the site",
            "at least 1.6",
            ratio(lambda: curve(False), lambda: curve(True), rounds),
        ),
    ):
        spread = f"{middle:.3g} ({least:.3g} to {most:.3g})"
        lines.append(f"{what} at {site} of the pocket model, over {other}: {spread}, goal {goal}")
    lines.append("")
    shared = lines[1].partition(": ")[2].partition(",")[0]
    claim("a dose-response curve of 16 strengths", "the same, each strength apart", shared, "equal to 5e-4 nats")
    return lines


def llama(path: str | None) -> Subject:
    """A llama of 10 million parameters and random weights, or the causal model of a folder."""
    if path is not None:
        return capture.load(path)
    config = transformers.LlamaConfig(
        hidden_size=256,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=768,
        vocab_size=4096,
        max_position_embeddings=256,
    )
    torch.manual_seed(0)
    return Subject(transformers.LlamaForCausalLM(config).eval(), None, "a llama of random weights", "causal")


def added(name: str, model: Any, layer: int, v: torch.Tensor, ids: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """How one package adds v behind a block: logits of all windows, and tokens after all prompts."""
    prompts = ids[:, : TOKENS // 2]
    mask = torch.ones_like(prompts)
    ask: dict[str, Any] = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}

    def read(call: Callable[..., Any] = model, **more: Any) -> torch.Tensor:
        return call(input_ids=ids, use_cache=False, **more).logits

    def write(call: Callable[..., Any]) -> torch.Tensor:
        return call(input_ids=prompts, attention_mask=mask, **ask)[:, prompts.shape[1] :]

    if name == "superscope":
        subject = Subject(model, None, name, "causal")
        edits = {f"resid_post.{layer}": Add(v)}

        def ours() -> torch.Tensor:
            with edited(subject, edits):
                return read()

        rows = prompts.tolist()
        return {
            "reading": ours,
            "writing": lambda: torch.tensor(generate(subject, rows, edits=edits, max_new_tokens=NEW, stop=False)),
        }
    if name == "steering-vectors":
        from steering_vectors import SteeringVector

        vector = SteeringVector({layer: v})

        def theirs(work: Callable[[], torch.Tensor]) -> torch.Tensor:
            with vector.apply(model):
                return work()

        return {"reading": lambda: theirs(read), "writing": lambda: theirs(lambda: write(model.generate))}
    if name == "repeng":
        from repeng import ControlModel

        controlled = ControlModel(model, [layer])
        places = torch.arange(ids.shape[1]).expand(len(ids), -1)

        def steered(work: Callable[[], torch.Tensor]) -> torch.Tensor:
            controlled.set_raw_control({layer: v})
            found = work()
            controlled.reset()
            return found

        return {
            # It masks pads by the positions, and takes them to be given for each sequence.
            "reading": lambda: steered(lambda: read(controlled, position_ids=places)),
            "writing": lambda: steered(lambda: write(controlled.generate)),
        }
    with redirect_stdout(io.StringIO()):
        import pyvene

    place = {"component": f"model.layers[{layer}].output", "intervention": lambda base, source: base + v}
    intervened = pyvene.IntervenableModel(place, model=model)

    def passes() -> torch.Tensor:
        _, out = intervened({"input_ids": ids, "use_cache": False})
        return out.logits

    def generated() -> torch.Tensor:
        _, out = intervened.generate({"input_ids": prompts, "attention_mask": mask}, intervene_on_prompt=True, **ask)
        return out[:, prompts.shape[1] :]

    return {"reading": passes, "writing": generated}


@torch.no_grad()
def beside(path: str | None, rounds: int) -> list[str]:
    """Each package that is here, on one model and the same work."""
    subject = llama(path)
    layer = (subject.model.config.num_hidden_layers - 1) // 2
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, subject.model.config.vocab_size, (WINDOWS, TOKENS), generator=generator)
    v = torch.randn(subject.d, generator=generator) / subject.d**0.5
    # What adding it by hand gives: the judge of all.
    block = subject.model.get_submodule(f"model.layers.{layer}")
    hook = block.register_forward_hook(lambda m, a, x: (x[0] + v, *x[1:]) if isinstance(x, tuple) else x + v)
    judge = subject.model(input_ids=ids, use_cache=False).logits
    whole = subject.model.generate(
        input_ids=ids[:, : TOKENS // 2],
        attention_mask=torch.ones_like(ids[:, : TOKENS // 2]),
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        do_sample=False,
        pad_token_id=0,
    )[:, TOKENS // 2 :]
    hook.remove()
    quality: dict[str, Callable[[torch.Tensor], float]] = {
        "reading": lambda logits: float((logits - judge).abs().max() / judge.abs().max()),
        "writing": lambda tokens: float((tokens != whole).double().mean()),
    }
    said = {
        "reading": f"reading {WINDOWS} windows of {TOKENS} tokens",
        "writing": f"writing {NEW} tokens after each of {WINDOWS} prompts of {TOKENS // 2}",
    }
    how = {"reading": "largest difference of logits from adding by hand, relative", "writing": "share of other tokens"}
    names = ["superscope", *(n for n, module in PEERS.items() if available(n, module, n))]
    made = {name: added(name, copy.deepcopy(subject.model), layer, v, ids) for name in names}
    lines = []
    for kind, what in said.items():
        contest = Contest(rounds if kind == "reading" else max(rounds // 3, 3))
        for name in names:
            contest.add(name, WINDOWS, made[name][kind], quality[kind])
        contest.run()
        lines.append(f"{what}, a vector added behind block {layer} of {subject.name}; quality: {how[kind]}")
        lines.append(contest.table(against=tuple(names[1:])))
        for peer in names[1:]:
            middle, low, high = contest.paired("superscope", peer)
            spread = f"{middle:.3f} [{low:.3f}, {high:.3f}]"
            best = contest.best("superscope", peer)
            lines.append(
                f"superscope over {peer}, {kind}: {spread}, median of {contest.rounds} rounds' own ratios and its 95 % "
                f"interval; each in its fastest round {best:.3f}"
            )
            reached = f"{how[kind]}: {contest.quality('superscope'):.1e} and {contest.quality(peer):.1e}"
            claim(f"{what}, a vector added", peer, f"{spread}; fastest rounds {best:.3f}", reached, peer)
        lines.append("")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="of reading; a third as many of writing")
    parser.add_argument("--short", action="store_true", help="twelve rounds, and no file")
    parser.add_argument("--peers-only", action="store_true", help="leave out what an edit costs and sharing saves")
    parser.add_argument("--model", help="a folder of a llama, in place of one with random weights")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 12 if options.short else options.rounds
    lines = [f"commit {commit()}, {rounds} rounds, medians (least to most favourable)", ""]
    if options.model is None and not options.peers_only:
        lines += alone(rounds)
    lines += beside(options.model, rounds)
    report("\n".join(lines), None if options.short else "steering_speed_results.md")


if __name__ == "__main__":
    main()
