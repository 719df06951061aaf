"""Writes `language_model.pt`: a language model of the smallest preset's sizes as TorchScript.

    pip install torch && python3 backends/torch/tests/language_model.py

It is no network but a formula, which the test that runs the file computes as well: the state of a position is
the sum of what stands there and before, and a token's logit is the product of the state with a wave of the
token's own.
"""

from pathlib import Path
from typing import Optional, Tuple  # noqa: UP035 (TorchScript knows no others)

import torch


class LanguageModel(torch.nn.Module):
    """Everything that was fed so far → states of all positions, logits of the last ones."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = 128
        self.tokens = 32_035

    def forward(
        self,
        input_ids: torch.Tensor,
        image_features: Optional[torch.Tensor],  # noqa: UP045
        image_position: Optional[torch.Tensor],  # noqa: UP045
        logits_from: torch.Tensor,
    ) -> Tuple[torch.Tensor, torch.Tensor]:  # noqa: UP006
        """Image features `[1, p, 64]` stand before the token `image_position`."""
        column = torch.arange(self.hidden) + 1
        states = torch.sin(input_ids.unsqueeze(-1).to(torch.float32) * column * 0.1)
        if image_features is not None and image_position is not None:
            at = int(image_position.item())
            image = torch.cat([image_features, image_features], -1)
            states = torch.cat([states[:, :at], image, states[:, at:]], 1)
        states = states.cumsum(1)
        waves = torch.cos(torch.arange(self.tokens).unsqueeze(0) * column.unsqueeze(1) * 0.001)
        return states, states[:, int(logits_from.item()) :].matmul(waves)


if __name__ == "__main__":
    torch.jit.script(LanguageModel()).save(Path(__file__).with_suffix(".pt"))
