"""How long do feature pages take, how large are they, and when is something seen? Beside sae-dashboard.

The pages of 384 latents at block 2 of the pocket model, from the same dictionary and as many tokens (20 480). Each
contestant in a process of its own, since their environments do not fit together:

    python benchmarks/studio_peers.py superscope FOLDER          # learns the dictionary, and leaves it for the others
    PEER/python benchmarks/studio_peers.py sae_dashboard FOLDER  # sae-dashboard==0.8.0 "pyarrow<22", no torchvision
    python benchmarks/studio_peers.py look FOLDER                # opens both in Chromium, with the network cut

Ours is a whole `superscope scan` of the site: it learns two dictionaries and measures all that a scan measures, and the
peers only draw, so that the ratio is against us. Times are processor seconds of the process after its imports and after
the model is loaded; a page is seen when a feature's contexts are, and one that asks other servers for its scripts never
is. sae_vis 0.3.7 is left out: it asks SAELens 6 for what earlier versions had (hook_layer, hook_sae_acts_post).
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

MODEL = Path(__file__).resolve().parents[1] / "superscope" / "capture" / "pocket" / "model"
N, CONTEXT, WINDOWS = 384, 128, 160
SITE, HOOK = "transformer.h.2", "blocks.2.hook_resid_post"


def noted(folder: Path, name: str, begun: float, page: Path) -> None:
    made = {"cpu_seconds": time.process_time() - begun, "megabytes": page.stat().st_size / 1e6}
    (folder / f"{name}.json").write_text(json.dumps(made))
    sys.stdout.write(f"{name}: {made['cpu_seconds']:.1f} processor seconds, {made['megabytes']:.2f} MB\n")


def superscope(folder: Path) -> None:
    import safetensors.numpy

    import superscope as ss
    from superscope import capture
    from superscope.dictionaries import formats, load
    from superscope.studies import Scan

    subject = capture.load("pocket")
    text = capture.tokens(subject.tokenizer, capture.documents(None), context=CONTEXT, limit=4 * WINDOWS * CONTEXT)
    tokens = text.ids[text.length == CONTEXT][:WINDOWS]
    begun = time.process_time()
    rows = WINDOWS * CONTEXT
    Scan(tokens=40_000, held_out=rows, n=N, k=12, seeds=2, steps=150, sites=(SITE,)).run(folder / "run")
    ss.studio.write_html(folder / "run")
    noted(folder, "superscope", begun, folder / "run" / "report.html")
    sae = load(folder / "run" / "saes" / "trained" / SITE / "seed0")
    formats.write(sae, folder / "saelens", "saelens")
    safetensors.numpy.save_file({"tokens": tokens.numpy()}, folder / "tokens.safetensors")


def _theirs(folder: Path):
    """Model, dictionary and tokens as TransformerLens and SAELens have them."""
    import torch
    from hooked import hooked
    from sae_lens import SAE, HookedSAETransformer
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    model = hooked(theirs, AutoTokenizer.from_pretrained(MODEL), HookedSAETransformer)
    sae = SAE.load_from_disk(folder / "saelens")
    # Our atoms have length 1, so that this changes nothing; without it sae-dashboard refuses a TopK.
    sae.cfg.rescale_acts_by_decoder_norm = True
    return model, sae, load_file(folder / "tokens.safetensors")["tokens"]


def sae_dashboard(folder: Path) -> None:
    from sae_dashboard.data_writing_fns import save_feature_centric_vis
    from sae_dashboard.sae_vis_data import SaeVisConfig
    from sae_dashboard.sae_vis_runner import SaeVisRunner

    model, sae, tokens = _theirs(folder)
    begun = time.process_time()
    asked = SaeVisConfig(hook_point=HOOK, features=list(range(N)), device="cpu")
    data = SaeVisRunner(asked).run(encoder=sae, model=model, tokens=tokens)
    page = folder / "sae_dashboard.html"
    save_feature_centric_vis(data, page)
    noted(folder, "sae_dashboard", begun, page)


def look(folder: Path) -> None:
    from playwright.sync_api import sync_playwright

    pages = {
        "superscope": (folder / "run" / "report.html", "#/features?feature=7", "#feature .token"),
        "sae_dashboard": (folder / "sae_dashboard.html", "", ".token"),
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium-headless-shell") or shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, (file, hashmark, shown) in pages.items():
            made = json.loads((folder / f"{name}.json").read_text())
            line = f"{name:14} {made['cpu_seconds']:6.1f} processor s  {made['megabytes']:6.2f} MB"
            asked = sorted(set(re.findall(r'<script[^>]* src="(https?://[^"]*)"', file.read_text(encoding="utf-8"))))
            seconds = []
            for _ in range(0 if asked else 5):
                context = browser.new_context(offline=True)
                page = context.new_page()
                begun = time.monotonic()
                page.goto(file.as_uri() + hashmark, wait_until="commit")
                page.locator(shown).first.wait_for(timeout=120_000)
                seconds.append(time.monotonic() - begun)
                context.close()
            if seconds:
                least, most = min(seconds), max(seconds)
                line += f"  first view {statistics.median(seconds):.2f} s ({least:.2f} to {most:.2f}, 5 times)"
            sys.stdout.write(line + (f"  draws nothing without {' and '.join(asked)}" if asked else "") + "\n")
        browser.close()


STEPS: dict[str, Callable[[Path], None]] = {each.__name__: each for each in (superscope, sae_dashboard, look)}

if __name__ == "__main__":
    place = Path(sys.argv[2])
    place.mkdir(parents=True, exist_ok=True)
    STEPS[sys.argv[1]](place)
