"""Writes what the fuzz targets begin with into `corpus/`, under names that begin with `seed-`.

Needs Pillow and tritonclient, and the Python client's stubs: `PYTHONPATH=clients/python/src python tests/fuzz/seeds.py`.
"""

import io
import json
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path

from PIL import Image
from smartedit.v1 import service_pb2 as smartedit_pb2
from tritonclient.grpc import service_pb2

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MODEL = ROOT / "models/tiny-random"


def seed(target: str, name: str, content: bytes) -> None:
    directory = HERE / "corpus" / target
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"seed-{name}").write_bytes(content)


def pictures() -> dict[str, bytes]:
    base = Image.effect_noise((9, 7), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [base.rotate(90)]}
    kinds = {
        "rgb.png": (base, "PNG", {}),
        "palette.png": (base.convert("P"), "PNG", {}),
        "grey16.png": (base.convert("I;16"), "PNG", {}),
        "alpha.png": (base.convert("RGBA"), "PNG", {"exif": exif}),
        "animated.png": (base, "PNG", frames),
        "turned.jpg": (base, "JPEG", {"exif": exif}),
        "grey.jpg": (base.convert("L"), "JPEG", {}),
        "cmyk.jpg": (base.convert("CMYK"), "JPEG", {}),
        "progressive.jpg": (base, "JPEG", {"progressive": True}),
        "lossy.webp": (base, "WEBP", {"exif": exif}),
        "lossless.webp": (base.convert("RGBA"), "WEBP", {"lossless": True}),
        "animated.webp": (base, "WEBP", frames),
    }
    files = {}
    for name, (image, kind, options) in kinds.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files[name] = buffer.getvalue()
    return files


def requests(picture: bytes) -> None:
    full = smartedit_pb2.EditRequest(image=picture, instruction="Change the left cat to a fox", deployment="d")
    options = full.options
    options.seed, options.steps, options.text_guidance, options.image_guidance = 7, 4, 7.5, 1.5
    options.resolution.width, options.resolution.height = 64, 64
    options.negative_prompt, options.temperature, options.template = "ugly", 0.5, 0
    options.preview_interval, options.output_quality = 2, 80
    plain = smartedit_pb2.EditRequest(image=picture, instruction="Make it blue")
    for name, message in {"full": full, "plain": plain}.items():
        seed("request", name, message.SerializeToString())


def tensor(request, name, datatype, shape):
    tensor = request.inputs.add()
    tensor.name, tensor.datatype = name, datatype
    tensor.shape.extend(shape)
    return tensor


def tensors(picture: bytes) -> None:
    edit = service_pb2.ModelInferRequest(model_name="d", model_version="1", id="mine")
    for name, content in {"image": picture, "instruction": b"Make it blue"}.items():
        tensor(edit, name, "BYTES", [1])
        edit.raw_input_contents.append(struct.pack("<I", len(content)) + content)
    edit.parameters["seed"].int64_param = 7
    edit.parameters["steps"].int64_param = 2
    typed = service_pb2.ModelInferRequest(model_name="d")
    for name, content in {"image": picture, "instruction": b"Make it blue"}.items():
        tensor(typed, name, "BYTES", [1]).contents.bytes_contents.append(content)
    typed.outputs.add().name = "image"
    decoder = service_pb2.ModelInferRequest(model_name="d/vae_decoder")
    tensor(decoder, "latents", "FP32", [1, 4, 2, 2]).contents.fp32_contents.extend([0.5] * 16)
    encoder = service_pb2.ModelInferRequest(model_name="d/text_encoder")
    tensor(encoder, "input_ids", "INT64", [1, 77])
    encoder.raw_input_contents.append(struct.pack("<77q", *([1] * 77)))
    messages = {"edit": edit, "typed": typed, "decoder": decoder, "encoder": encoder}
    for name, message in messages.items():
        seed("tensors", name, message.SerializeToString())


def state_dict(protocol: int) -> tuple[bytes, bytes]:
    """The pickle of two tensors as PyTorch writes it, and the storage that they share."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    sys.modules.update({"torch": torch, "torch._utils": utils})

    def rebuild(*_):
        raise NotImplementedError

    rebuild.__module__, rebuild.__name__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})

    class Storage:
        pass

    class Tensor:
        def __init__(self, *arguments):
            self.arguments = arguments

        def __reduce__(self):
            return rebuild, self.arguments

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", 6) if isinstance(value, Storage) else None

    storage, buffer = Storage(), io.BytesIO()
    tensors = {
        "plain.weight": Tensor(storage, 0, (2, 3), (3, 1), False, {}),
        "turned.weight": Tensor(storage, 0, (3, 2), (1, 3), False, {}),
    }
    Pickler(buffer, protocol).dump(tensors)
    return buffer.getvalue(), struct.pack("<6f", *range(6))


def checkpoints() -> None:
    for protocol in (2, 4):
        content, storage = state_dict(protocol)
        seed("pickle", f"protocol-{protocol}", content)
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("archive/data.pkl", content)
            file.writestr("archive/data/0", storage)
            file.writestr("archive/version", b"3\n")
        seed("checkpoint", f"protocol-{protocol}.bin", archive.getvalue())
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
            "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]},
        }
    ).encode()
    header += b" " * (-len(header) % 8)
    seed("checkpoint", "plain.safetensors", struct.pack("<Q", len(header)) + header + bytes(22))


def tokenizers() -> None:
    pieces = ["<unk>", "<s>", "</s>", "\u2581", "a", "c", "t", "at", "cat", "\u2581cat"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    spaces = [{"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]
    model = {"type": "BPE", "vocab": vocab, "merges": ["a t", "c at", "\u2581 cat"], "byte_fallback": True}
    for name, rest in {
        "normalizer": {"normalizer": {"type": "Sequence", "normalizers": spaces}, "pre_tokenizer": None},
        "metaspace": {"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "split": False}},
    }.items():
        seed("tokenizer_json", name, json.dumps({**rest, "model": model}).encode())
    seed("sentencepiece", "tiny-random", (MODEL / "tokenizer.model").read_bytes())
    letters = ["a", "t", "c", "a</w>", "t</w>", "c</w>", "at</w>", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    vocab = json.dumps({piece: index for index, piece in enumerate(letters)}).encode()
    seed("clip_tokenizer", "small", vocab + b"\0#version: 0.2\na t</w>\nc at</w>\n")


def configurations() -> None:
    for name in ("tiny-random", "emoji", "emoji-instruct-pix2pix"):
        seed("model", name, (ROOT / "models" / name / "model.json").read_bytes())
    page = (ROOT / "docs/configuration.md").read_text()
    for index, block in enumerate(page.split("```toml\n")[1:]):
        seed("configuration", f"page-{index}", block.split("```")[0].encode())


def main() -> None:
    files = pictures()
    for name, content in files.items():
        seed("picture", name, content)
    requests(files["rgb.png"])
    tensors(files["rgb.png"])
    checkpoints()
    tokenizers()
    configurations()


if __name__ == "__main__":
    main()
