"""How is a dictionary of ours evaluated by SAEBench? As the module that its evaluations call."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...core import SparseCode
from ..sae import SAE


class AsSAEBench(nn.Module):
    """A dictionary with the names that SAEBench asks of one: `encode`, `decode`, `W_dec`, `cfg.hook_name`.

    `sae_bench.evals.core.main.run_evals(AsSAEBench(sae, ...), store, model)`. Codes and reconstructions are our own; no
    weight is copied or changed. SAEBench itself is not imported.

    Args:
        sae: any of ours, over vectors.
        hook_name: where SAEBench reads it, in TransformerLens's words (`capture.hook_name`), or a module path of the
            model that SAELens wraps.
        hook_layer: the block; SAEBench stops the model behind it.
        model_name: as SAEBench writes it into its results.

    Raises:
        TypeError: if `sae` is none of ours.
    """

    def __init__(self, sae: SAE, *, hook_name: str, hook_layer: int, model_name: str = "") -> None:
        super().__init__()
        if not isinstance(sae, SAE):
            raise TypeError(f"AsSAEBench: a {type(sae).__name__} is no SAE; give one of superscope.dictionaries.")
        self.sae = sae
        atoms = sae.dictionary.atoms.detach()
        self.register_buffer("W_dec", atoms)
        self.register_buffer("W_enc", sae.encoder.detach().T)
        self.register_buffer("b_enc", atoms.new_zeros(sae.n))
        bias = sae.dictionary.bias
        self.register_buffer("b_dec", atoms.new_zeros(sae.d) if bias is None else bias.detach())
        self.device, self.dtype = atoms.device, atoms.dtype
        self.cfg = SimpleNamespace(
            model_name=model_name,
            d_in=sae.d,
            d_sae=sae.n,
            hook_name=hook_name,
            hook_layer=hook_layer,
            hook_head_index=None,
            context_size=None,
            prepend_bos=False,
            normalize_activations="none",
            seqpos_slice=(None,),
            dtype=str(atoms.dtype).removeprefix("torch."),
            device=str(atoms.device),
            architecture=type(sae).__name__.lower(),
        )

    def encode(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch n"]:
        """Codes with their zeros."""
        flat = self.sae.encode(x.reshape(-1, x.shape[-1])).dense()
        return flat.reshape(*x.shape[:-1], -1)

    def decode(self, f: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch d"]:
        """What codes stand for."""
        flat = self.sae.decode(SparseCode.from_dense(f.reshape(-1, f.shape[-1])))
        return flat.reshape(*f.shape[:-1], -1)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The reconstruction."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def check_decoder_norms(self) -> bool:
        """Whether atoms have length 1, which SAEBench asks before it begins."""
        return bool(torch.allclose(self.sae.dictionary.atoms.norm(dim=1), torch.ones(self.sae.n), atol=1e-5))
