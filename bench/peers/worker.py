"""One peer at work: loads, then repeats its work once for every line on standard input.

The same protocol as `smartedit bench --serve-iterations`: a line of JSON when it is ready, then one per
iteration.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import networks

Work = Callable[[], object]
"""Does the work; a dictionary that it returns holds the seconds of its parts."""

LATENTS = (32, 32)
BATCH = 3
TIMESTEP = 500.0


def unet(_arguments: argparse.Namespace) -> Work:
    """A denoising step in diffusers."""
    model = networks.unet()
    sample, timestep, context = unet_inputs()
    return lambda: model(sample, timestep, encoder_hidden_states=context, return_dict=False)


def unet_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sample, timesteps and context of one step."""
    sample = torch.randn(BATCH, 8, *LATENTS)
    return sample, torch.full((BATCH,), TIMESTEP, dtype=torch.float32), torch.randn(BATCH, 77, 768)


def unet_onnxruntime(arguments: argparse.Namespace) -> Work:
    """A denoising step in onnxruntime, of a graph exported from diffusers."""
    import onnxruntime

    path = Path(arguments.cache) / "unet" / "unet.onnx"
    if not path.exists():
        export_unet(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    tensors = [tensor.numpy() for tensor in unet_inputs()]
    inputs = dict(zip([value.name for value in session.get_inputs()], tensors, strict=True))
    return lambda: session.run(None, inputs)


def export_unet(path: Path) -> None:
    """Exports diffusers' UNet in a process of its own, whose memory is given back."""
    child = os.fork()
    if child == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".part.onnx")
        sys.stdout = sys.stderr
        torch.onnx.export(
            networks.unet(), unet_inputs(), str(beside), dynamo=True, external_data=True, opset_version=20
        )
        beside.rename(path)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise SystemExit("exporting the UNet failed")


def vae_encoder(_arguments: argparse.Namespace) -> Work:
    """A picture to latents in diffusers."""
    model = networks.vae()
    image = torch.randn(1, 3, 8 * LATENTS[0], 8 * LATENTS[1]).tanh()
    return lambda: model.encode(image).latent_dist.mode()


def vae_decoder(_arguments: argparse.Namespace) -> Work:
    """Latents to a picture in diffusers."""
    model = networks.vae()
    latents = torch.randn(1, 4, *LATENTS)
    return lambda: model.decode(latents, return_dict=False)


def vision_encoder(_arguments: argparse.Namespace) -> Work:
    """A picture's features in transformers."""
    model = networks.vision_encoder(layers=23)
    pixels = torch.randn(1, 3, 224, 224)
    return lambda: model(pixels).last_hidden_state


def language_model(arguments: argparse.Namespace) -> Work:
    """Prompt and reply in transformers, one token at a time."""
    from reference import Reference

    class Replying(Reference):
        def __init__(self) -> None:
            self.projector = torch.nn.Linear(1024, 4096)
            self.llama = networks.language_model(arguments.layers)

    model = Replying()
    image = torch.randn(1, 256, 1024)

    def work() -> dict[str, float]:
        spent: dict[str, float] = {}
        model.reply(image, spent)
        return spent

    return work


def edit(arguments: argparse.Namespace) -> Work:
    """A whole edit in the reference's way."""
    from reference import Reference

    model = Reference(arguments.layers, torch.get_default_dtype())
    return lambda: model.edit(8 * LATENTS[0], arguments.steps)


KINDS = {
    "unet": unet,
    "unet_onnxruntime": unet_onnxruntime,
    "vae_encoder": vae_encoder,
    "vae_decoder": vae_decoder,
    "vision_encoder": vision_encoder,
    "language_model": language_model,
    "edit": edit,
}


def answer(value: dict[str, object]) -> None:
    """Writes a line of JSON."""
    print(json.dumps(value), flush=True)


def main() -> None:
    """Serves iterations until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cache", default=".cache/peers")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    torch.set_default_dtype({"f32": torch.float32, "bf16": torch.bfloat16}[arguments.precision])
    with torch.inference_mode():
        work = KINDS[arguments.kind](arguments)
        work()
        answer({"ready": arguments.kind})
        for _ in sys.stdin:
            start = time.perf_counter()
            result = work()
            seconds = time.perf_counter() - start
            parts = result if isinstance(result, dict) else {}
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            named = [{"name": name, "seconds": value} for name, value in parts.items()]
            answer({"seconds": seconds, "parts": named, "peak_resident_bytes": peak})


if __name__ == "__main__":
    main()
