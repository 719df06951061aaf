"""What is measured against what."""

from dataclasses import dataclass

LAYERS = 8
"""Layers of the language model: the time of a layer does not depend on how many there are."""

STEPS = 20


@dataclass(frozen=True)
class Side:
    """One of the two that take turns."""

    label: str
    """How the results call it."""
    arguments: tuple[str, ...]
    """Of `smartedit bench`, or of `worker.py`."""
    ours: bool = True


@dataclass(frozen=True)
class Row:
    """A ratio and its bar."""

    name: str
    work: str
    """What both sides do."""
    side: Side
    peer: Side
    bar: float | None = None
    """Largest ratio wanted."""
    part: str | None = None
    """The part whose time counts; without it, the whole's."""


def ours(engine: str, precision: str, stage: str, *more: str, preset: str = "sd15") -> Side:
    """`smartedit bench` on an engine."""
    arguments = (
        "--preset", preset, "--stage", stage, "--engine", engine, "--precision", precision, *more
    )  # fmt: skip
    return Side(f"{engine} engine, {precision}", arguments)


def peer(label: str, kind: str, precision: str, *more: str) -> Side:
    """A peer in Python."""
    return Side(f"{label}, {precision}", (kind, "--precision", precision, *more), ours=False)


UNET = "UNet step: SD-1.5 sizes, 32×32 latents, batch 3"
LLAMA = ("--layers", str(LAYERS))
REPLY = f"reply and image tokens (10 + 32), after a prompt of 342 positions: LLaMA-7B sizes, {LAYERS} layers"
EDIT = f"whole edit, 256×256 pixels, {STEPS} steps: SmartEdit-7B sizes, {LAYERS} LLaMA layers"

ROWS = [
    Row(
        "unet-f32",
        UNET,
        ours("torch", "f32", "denoiser"),
        peer("diffusers", "unet", "f32"),
        1.0,
    ),
    Row(
        "unet-bf16",
        UNET,
        ours("torch", "bf16", "denoiser"),
        peer("diffusers", "unet", "bf16"),
        1.0,
    ),
    Row(
        "unet-bf16-f32",
        UNET,
        ours("torch", "bf16", "denoiser"),
        ours("torch", "f32", "denoiser"),
        0.5,
    ),
    Row(
        "unet-onnx",
        UNET,
        ours("onnx", "f32", "denoiser"),
        peer("onnxruntime, exported graph", "unet_onnxruntime", "f32"),
        1.0,
    ),
    Row(
        "unet-candle",
        UNET,
        ours("candle", "f32", "denoiser"),
        ours("torch", "f32", "denoiser"),
        1.25,
    ),
    Row(
        "unet-candle-peer",
        UNET,
        ours("candle", "f32", "denoiser"),
        peer("diffusers", "unet", "f32"),
    ),
    Row(
        "reply",
        REPLY + "; drafted beside step by step",
        ours("torch", "bf16", "language_model", *LLAMA, "--decoding", "drafted", preset="smartedit-7b"),
        ours("torch", "bf16", "language_model", *LLAMA, "--decoding", "stepwise", preset="smartedit-7b"),
        0.25,
        part="reply",
    ),
    Row(
        "edit",
        EDIT,
        ours("torch", "bf16", "edit", *LLAMA, "--steps", str(STEPS), preset="smartedit-7b"),
        peer("the reference's way in PyTorch", "edit", "bf16", *LLAMA, "--steps", str(STEPS)),
        0.8,
    ),
    Row(
        "reply-stepwise",
        REPLY + "; both step by step",
        ours("torch", "bf16", "language_model", *LLAMA, "--decoding", "stepwise", preset="smartedit-7b"),
        peer("transformers", "language_model", "bf16", *LLAMA),
        part="reply",
    ),
    Row(
        "vision",
        "CLIP ViT-L/14 vision tower, one picture",
        ours("torch", "f32", "vision_encoder", preset="smartedit-7b"),
        peer("transformers", "vision_encoder", "f32"),
    ),
    Row(
        "vae-encoder",
        "VAE encoder, 256×256 pixels",
        ours("torch", "f32", "vae_encoder"),
        peer("diffusers", "vae_encoder", "f32"),
    ),
    Row(
        "vae-decoder",
        "VAE decoder, 32×32 latents",
        ours("torch", "f32", "vae_decoder"),
        peer("diffusers", "vae_decoder", "f32"),
    ),
]
