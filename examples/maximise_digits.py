"""Train a small vision model on handwritten digits, and climb to the pictures that move its neurons and latents most.

python examples/maximise_digits.py FOLDER       # the model, the pictures, a dictionary and two runs

Needs scikit-learn (extra `classical`), whose 1 797 digits of 8 x 8 pixels are doubled to 16 x 16.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from sklearn.datasets import load_digits

import superscope as ss


def train(folder, epochs=60):
    """A ViT of four layers on 1 437 digits; returns its accuracy on the other 360."""
    torch.manual_seed(0)
    digits = load_digits()
    pixels = (
        torch.tensor(digits.images / 8 - 1, dtype=torch.float32)[:, None]
        .repeat_interleave(2, 2)
        .repeat_interleave(2, 3)
    )
    labels = torch.tensor(digits.target)
    config = transformers.ViTConfig(
        hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128, image_size=16, patch_size=4,
        num_channels=1, num_labels=10,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    order = torch.randperm(len(labels))
    seen, held = order[:1437], order[1437:]
    adam = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    for _ in range(epochs):
        for part in seen[torch.randperm(len(seen))].split(64):
            # Moved by up to a pixel, or 1 437 digits are soon known by heart.
            moved = torch.roll(pixels[part], tuple(torch.randint(-1, 2, (2,)).tolist()), (2, 3))
            loss = torch.nn.functional.cross_entropy(model(pixel_values=moved).logits, labels[part])
            adam.zero_grad()
            loss.backward()
            adam.step()
    model.eval()
    with torch.no_grad():
        logits = model(pixel_values=pixels[held]).logits
    model.save_pretrained(folder / "vit")
    np.save(folder / "digits.npy", pixels.numpy())
    return float((logits.argmax(1) == labels[held]).double().mean())


folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
print(f"accuracy on held-out digits: {train(folder):.3f}")
given = {"model": str(folder / "vit"), "images": str(folder / "digits.npy")}
model = ss.capture.load(given["model"]).model
images = ss.capture.fitted_images(model, torch.from_numpy(np.load(folder / "digits.npy")))
site, *_ = ss.capture.sites(model, ["resid_post.2"])
rows = ss.capture.MemorySource.gather([batch[site] for batch in ss.capture.harvest(model, [site], images)], site)
sae = ss.dictionaries.TopK(d=rows.d, n=256, k=8)
for _ in ss.dictionaries.train(sae, rows, steps=600, **ss.dictionaries.SHORT | {"batch": 512}):
    pass
sae.save(folder / "sae")
runs = {
    "neurons": ss.studies.Maximise(**given, site="mlp_act.2", count=12, position="best"),
    "latents": ss.studies.Maximise(
        **given, site="resid_post.2", dictionary=str(folder / "sae"), count=12, position="best", control=False
    ),
}
for name, study in runs.items():
    print(name, *study.run(folder / name).findings, sep="\n  ")
