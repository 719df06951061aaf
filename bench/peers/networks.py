"""The networks of SmartEdit in PyTorch, from diffusers and transformers, with pseudo-random weights."""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
)

IMAGE_TOKENS = 32
VOCABULARY = 32_000 + 3 + IMAGE_TOKENS


def unet() -> UNet2DConditionModel:
    """Stable Diffusion 1.5's, with InstructPix2Pix's eight input channels."""
    cross = ("CrossAttnDownBlock2D",) * 3
    return UNet2DConditionModel(
        sample_size=64,
        in_channels=8,
        out_channels=4,
        down_block_types=(*cross, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        block_out_channels=(320, 640, 1280, 1280),
        cross_attention_dim=768,
        attention_head_dim=8,
    ).eval()


def vae() -> AutoencoderKL:
    """Stable Diffusion 1.x's."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
    ).eval()


def vision_encoder(layers: int = 24) -> CLIPVisionModel:
    """CLIP ViT-L/14. The reference computes the last of its 24 layers too, whose output it does not use."""
    config = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=layers,
        num_attention_heads=16,
        image_size=224,
        patch_size=14,
        projection_dim=768,
    )
    return CLIPVisionModel(config).eval()


def text_encoder() -> CLIPTextModel:
    """CLIP ViT-L/14's."""
    config = CLIPTextConfig(
        vocab_size=49_408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
    )
    return CLIPTextModel(config).eval()


def language_model(layers: int) -> LlamaForCausalLM:
    """LLaMA-7B with SmartEdit's added tokens."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=layers,
        num_attention_heads=32,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval()


class Lora(nn.Module):
    """A linear layer beside its low-rank change, kept apart as the reference keeps them."""

    RANK = 8
    SCALE = 2.0

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.a = nn.Linear(base.in_features, self.RANK, bias=False)
        self.b = nn.Linear(self.RANK, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Both, added."""
        return self.base(x) + self.SCALE * self.b(self.a(x))


def add_lora(model: LlamaForCausalLM) -> None:
    """Gives queries and values of every layer their low-rank changes."""
    for layer in model.model.layers:
        layer.self_attn.q_proj = Lora(layer.self_attn.q_proj)
        layer.self_attn.v_proj = Lora(layer.self_attn.v_proj)
