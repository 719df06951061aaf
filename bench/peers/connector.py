"""QFormer and Bidirectional Interaction Module as the reference computes them."""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

QUERIES = 77
WIDTH = 768
VISION = 1024
GRID = 16
CHANNELS = 320


class Attention(nn.Module):
    """Multi-head attention whose heads may be narrower than its input."""

    def __init__(self, query: int, key: int, inner: int, heads: int) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(query, inner), nn.Linear(key, inner), nn.Linear(key, inner)
        self.out = nn.Linear(inner, query)
        self.heads = heads

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """`[b, n, query]`, `[b, m, key]` twice → `[b, n, query]`."""

        def split(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        attended = F.scaled_dot_product_attention(split(self.q(q)), split(self.k(k)), split(self.v(v)))
        return self.out(attended.transpose(1, 2).flatten(2))


class QFormerLayer(nn.Module):
    """Self-attention, in every other layer cross-attention, and an MLP, each with its norm behind it."""

    def __init__(self, states: int, cross: bool) -> None:
        super().__init__()
        norm = lambda: nn.LayerNorm(WIDTH, eps=1e-12)  # noqa: E731
        self.self_attention, self.self_norm = Attention(WIDTH, WIDTH, WIDTH, 12), norm()
        self.cross = Attention(WIDTH, states, WIDTH, 12) if cross else None
        self.cross_norm = norm() if cross else None
        self.up, self.down, self.norm = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH), norm()

    def forward(self, x: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Queries `[1, 77, 768]` and image-token states `[1, 32, h]`."""
        x = self.self_norm(x + self.self_attention(x, x, x))
        if self.cross is not None:
            x = self.cross_norm(x + self.cross(x, states, states))
        return self.norm(x + self.down(F.gelu(self.up(x))))


class QFormer(nn.Module):
    """Six layers over learned queries."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, QUERIES, WIDTH))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList(QFormerLayer(states, layer % 2 == 0) for layer in range(6))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Image-token states `[1, 32, h]` → `[1, 77, 768]`."""
        x = self.norm(self.queries)
        for layer in self.layers:
            x = layer(x, states)
        return x


class TwoWayBlock(nn.Module):
    """Text reads itself, then the image; the image reads the text."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attention = Attention(VISION, VISION, VISION, 8)
        self.text_to_image = Attention(VISION, VISION, VISION // 2, 8)
        self.image_to_text = Attention(VISION, VISION, VISION // 2, 8)
        self.up, self.down = nn.Linear(VISION, 2048), nn.Linear(2048, VISION)
        self.norms = nn.ModuleList(nn.LayerNorm(VISION) for _ in range(4))

    def forward(
        self, x: torch.Tensor, image: torch.Tensor, text_position: torch.Tensor, image_position: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Text `[1, 77, 1024]` and image `[1, 256, 1024]`, and what is added to them in queries and keys."""
        if self.first:
            x = self.self_attention(x, x, x)
        else:
            placed = x + text_position
            x = x + self.self_attention(placed, placed, x)
        x = self.norms[0](x)
        x = self.norms[1](x + self.text_to_image(x + text_position, image + image_position, image))
        x = self.norms[2](x + self.down(F.relu(self.up(x))))
        image = self.norms[3](image + self.image_to_text(image + image_position, x + text_position, x))
        return x, image


class Bim(nn.Module):
    """The Bidirectional Interaction Module."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, VISION)
        self.gaussian = nn.Parameter(torch.randn(2, VISION // 2))
        self.blocks = nn.ModuleList(TwoWayBlock(first) for first in (True, False))
        self.final = Attention(VISION, VISION, VISION // 2, 8)
        self.norm = nn.LayerNorm(VISION)
        self.to_latents = nn.Conv2d(VISION, CHANNELS, 1)
        self.to_text = nn.Linear(VISION, WIDTH)

    def forward(
        self, image: torch.Tensor, text: torch.Tensor, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image `[1, 256, 1024]` and text `[1, 77, 768]` → feature for the UNet, text feature."""
        place = self._position(image.dtype)
        first = self.head(text)
        x = first
        for block in self.blocks:
            x, image = block(x, image, first, place)
        x = self.norm(x + self.final(x + first, image + place, image))
        grid = image.transpose(1, 2).unflatten(2, (GRID, GRID))
        feature = self.to_latents(F.interpolate(grid, size=size, mode="bilinear", align_corners=False))
        return feature, self.to_text(x)

    def _position(self, dtype: torch.dtype) -> torch.Tensor:
        centres = 2 * ((torch.arange(GRID, dtype=torch.float32) + 0.5) / GRID) - 1
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        angles = 2 * math.pi * (torch.stack([x, y], dim=-1) @ self.gaussian.float())
        return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(0, 1)[None].to(dtype)
