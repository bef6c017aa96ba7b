"""A model's linear layers are compressed for a while, and are then bit for bit what they were."""

from __future__ import annotations

import pytest
import torch

from superscope.capture import Capture, Subject, blocks
from superscope.core import SiteNotFound
from superscope.intervene import next_token_loss
from superscope.intervene.compression import Magnitude, compressed, input_moments, linear_layers
from superscope.intervene.compression.layers import weight

from ...capture.conftest import CAUSAL


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("family", tuple(CAUSAL))
def test_weights_and_inputs_are_those_of_the_layer_and_come_back(family, model_of, tokenizer, corpus) -> None:
    model = model_of(family)
    subject = Subject(model, tokenizer, family, "causal")
    layers = linear_layers(model, [blocks(model)[0]])
    assert len(layers) >= 2
    moments = input_moments(subject, layers, corpus)
    before, clean = state(model), next_token_loss(subject, corpus)
    layer = layers[0]
    with Capture(model, [f"{layer}:in", layer]) as capture:
        x, y = capture(input_ids=corpus.ids[:2]).values()
    bias = model.get_submodule(layer).bias
    assert torch.allclose(x @ weight(model, layer).T + (0 if bias is None else bias), y, atol=1e-4)
    H = moments[layer]
    assert H.shape == (x.shape[-1], x.shape[-1])
    assert float(torch.linalg.eigvalsh(H)[0]) > -1e-9 * float(H.trace())
    with compressed(model, lambda W, H: Magnitude().sparse(W, H, 0.9), moments) as own:
        assert set(own) == set(layers)
        for each in layers:
            assert float((weight(model, each) == 0).float().mean()) == pytest.approx(0.9, abs=0.01)
        assert not torch.equal(next_token_loss(subject, corpus).nats, clean.nats)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    with pytest.raises(ZeroDivisionError), compressed(model, lambda W, H: W.zero_(), moments):
        raise ZeroDivisionError
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with (
        pytest.raises(ValueError, match="a compressed layer keeps its shape"),
        compressed(model, lambda W, H: W[:1], moments),
    ):
        pass
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_is_compressed_is_named(model_of) -> None:
    model = model_of("gpt2")
    assert linear_layers(model, ["transformer.h.0.mlp"]) == ("transformer.h.0.mlp.c_fc", "transformer.h.0.mlp.c_proj")
    assert linear_layers(model, ["transformer.h.0.mlp.c_fc"]) == ("transformer.h.0.mlp.c_fc",)
    with pytest.raises(ValueError, match=r"no linear layer at transformer\.h\.0\.ln_1 whose weights are its own"):
        linear_layers(model, ["transformer.h.0.ln_1"])
    # The unembedding is the embedding.
    with pytest.raises(ValueError, match="no linear layer at lm_head"):
        linear_layers(model, ["lm_head"])
    with pytest.raises(SiteNotFound):
        linear_layers(model, ["transformer.h.9"])
