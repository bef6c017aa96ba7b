"""Reading one site of a language model: ours beside a bare early-exit forward and the frameworks, in CPU seconds.

    python benchmarks/capture_forward.py [--small] [--short] [--dtype float32|bfloat16]

A random model of GPT-2-small's shape, block 6, batches of 2 x 128; and the pocket model, where overheads show, most in
short passes: nobody who runs the model is faster than the bare early exit. One thread; contestants in turn; the median
round. Peers that are not installed are left out (nnsight from 0.5, transformer_lens, sae_lens). What is called quality
is the largest difference from the plain hook, relative to the norm of x.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from results import available, claim
from timing import Contest, environment
from torch import Tensor

from superscope import capture

PACKAGES = {
    "bare early exit": "",
    "nnsight with stop": "nnsight",
    "TransformerLens with stop": "transformer-lens",
    "SAELens store": "sae-lens",
    "output_hidden_states": "transformers",
}
"""The distribution of each contestant."""


class Stop(Exception):
    """Leaves the bare forward at the site."""


def bare(model: Any, block: int, ids: Tensor) -> Callable[[], Tensor]:
    """The least that reading a site can cost: a hook that keeps x and leaves."""
    read: list[Tensor] = []

    def hook(_: Any, __: Any, output: Any) -> None:
        read.append(output if isinstance(output, Tensor) else output[0])
        raise Stop

    model.transformer.h[block].register_forward_hook(hook)

    def work() -> Tensor:
        read.clear()
        with torch.no_grad(), contextlib.suppress(Stop):
            model.transformer(input_ids=ids, use_cache=False)
        return read[0]

    return work


def contest(make: Callable[[], Any], block: int, ids: Tensor, rounds: int) -> Contest:
    """Every contestant on a copy of one model, so that none runs through another's hooks."""
    reference = bare(make(), block, ids)
    truth = reference().float()

    def quality(x: Any) -> float:
        return float((x.float().reshape(truth.shape) - truth).norm() / truth.norm())

    trial = Contest(rounds)
    n = ids.numel()
    trial.add("bare early exit", n, reference, quality)
    model = make()
    reading = capture.Capture(model, [f"transformer.h.{block}"]).__enter__()
    trial.add("superscope", n, lambda: next(iter(reading(input_ids=ids).values())), quality)
    whole = make()

    def hidden() -> Tensor:
        with torch.no_grad():
            return whole(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[block + 1]

    trial.add("output_hidden_states", n, hidden, quality)
    if available("nnsight", "nnsight", "nnsight", "0.5"):
        import nnsight  # pyright: ignore[reportMissingImports]

        wrapped = nnsight.NNsight(make())

        def traced() -> Tensor:
            with torch.no_grad(), wrapped.trace(ids) as tracer:
                x = wrapped.transformer.h[block].output.save()
                tracer.stop()
            return x if isinstance(x, Tensor) else x[0]

        trial.add("nnsight with stop", n, traced, quality)
    if available("TransformerLens", "transformer_lens", "transformer-lens"):
        lens = transformer_lens(make())
        if lens is not None:
            name = f"blocks.{block}.hook_resid_post"

            def cached() -> Tensor:
                with torch.no_grad():
                    _, cache = lens.run_with_cache(ids, names_filter=[name], stop_at_layer=block + 1)
                return cache[name] if name in cache else next(iter(cache.values()))

            trial.add("TransformerLens with stop", n, cached, quality)
            if available("SAELens's store", "sae_lens", "sae-lens"):
                trial.add("SAELens store", n, saelens_store(lens, name, ids), quality)
    return trial


def transformer_lens(model: Any) -> Any | None:
    """TransformerLens around the model: 4.x wraps it, 3.x converts its weights where it can."""
    try:
        from transformer_lens.model_bridge import TransformerBridge  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    tokenizer = capture.load("pocket").tokenizer
    return TransformerBridge.boot_transformers("gpt2", hf_model=model, tokenizer=tokenizer)


def saelens_store(lens: Any, name: str, ids: Tensor) -> Callable[[], Tensor]:
    """What SAELens's ActivationsStore does for one batch of tokens."""
    from sae_lens.training.activations_store import ActivationsStore  # pyright: ignore[reportMissingImports]

    rows = [{"tokens": row.tolist()} for row in ids] * 4096
    import datasets  # pyright: ignore[reportMissingImports]

    store = ActivationsStore(
        model=lens,
        dataset=datasets.Dataset.from_list(rows[: 2 * len(ids)]),
        streaming=False,
        hook_name=name,
        hook_head_index=None,
        context_size=ids.shape[1],
        d_in=lens.cfg.d_model,
        n_batches_in_buffer=64,
        total_training_tokens=10**6,
        store_batch_size_prompts=len(ids),
        train_batch_size_tokens=ids.numel(),
        prepend_bos=False,
        normalize_activations="none",
        device=torch.device("cpu"),
        dtype="float32",
    )
    return lambda: store.get_activations(ids)


def main() -> None:
    """Runs both models, prints the tables and writes them beside this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--short", action="store_true", help="fewer rounds; printed only")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    dtype = getattr(torch, options.dtype)
    layers = 3 if options.small else 12
    block = layers // 2
    torch.manual_seed(0)
    shape = transformers.GPT2Config(n_layer=layers, vocab_size=5000 if options.small else 50257)
    state = transformers.GPT2LMHeadModel(shape).state_dict()

    def gpt2() -> Any:
        model = transformers.GPT2LMHeadModel(shape)
        model.load_state_dict(state)
        return model.to(dtype).eval()

    def pocket() -> Any:
        return capture.load("pocket", dtype=dtype).model

    text = [environment() + f", {options.dtype}" + (", small" if options.small else "")]
    for title, make, at, ids in (
        (f"GPT-2-small's shape, {layers} layers", gpt2, block, torch.randint(1, 4000, (2, 128))),
        ("pocket model", pocket, 2, torch.randint(1, 4000, (2, 128))),
        ("pocket model, short passes", pocket, 0, torch.randint(1, 4000, (1, 128))),
    ):
        trial = contest(make, at, ids, rounds=3 if options.small else 5 if options.short else 15).run()
        text += [
            f"\n{title}, block {at}, {' x '.join(map(str, ids.shape))} tokens",
            trial.table(("superscope", "bare early exit")),
        ]
        for peer, package in PACKAGES.items():
            if peer in trial.names:
                off = f"{trial.quality('superscope'):.0e} and {trial.quality(peer):.0e} off the plain hook"
                claim(f"reading one site: {title}", peer, trial.ratio("superscope", peer), off, package)
    print("\n".join(text))
    if not (options.small or options.short):
        with Path(__file__).with_name("capture_results.md").open("a") as file:
            file.write("\n```\n" + "\n".join(text) + "\n```\n")


if __name__ == "__main__":
    main()
