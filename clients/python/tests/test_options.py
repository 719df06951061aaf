import re
from typing import Any, get_args

import numpy as np
import pytest

from smartedit.options import (
    AlphaMode,
    EditOptions,
    ExifOrientation,
    ImageTokens,
    OutputFormat,
    Priority,
    ResizeMode,
    Scheduler,
    to_message,
)
from smartedit.v1 import edit_pb2


def test_every_option_reaches_its_field() -> None:
    noise = np.arange(4, dtype=np.float64).reshape(1, 4, 1, 1)
    options: EditOptions = {
        "seed": 2**64 - 1,
        "steps": 3,
        "text_guidance": 7.5,
        "image_guidance": 1.5,
        "resolution": (64, 32),
        "resize_mode": "fit",
        "scheduler": "euler_ancestral",
        "temperature": 0.5,
        "template": 2,
        "noise_source": "torch",
        "image_tokens": "free",
        "negative_prompt": "blurred",
        "preview_interval": 5,
        "output_format": "jpeg",
        "output_quality": 80,
        "keep_on_disconnect": True,
        "exif_orientation": "ignore",
        "alpha_mode": "drop",
        "control_tokens": True,
        "no_cache": True,
        "priority": "batch",
        "caller": "studio",
        "adapter": "cats",
        "adapter_scale": 0.5,
        "route_key": "somebody",
        "initial_latents": noise,
        "step_noise": [noise, noise],
    }
    assert options.keys() == EditOptions.__annotations__.keys(), "this test must set every option"
    tensor = edit_pb2.Tensor(shape=[1, 4, 1, 1], data=np.array([0, 1, 2, 3], "<f4").tobytes())
    assert to_message(options) == edit_pb2.EditOptions(
        seed=2**64 - 1,
        steps=3,
        text_guidance=7.5,
        image_guidance=1.5,
        resolution=edit_pb2.Resolution(width=64, height=32),
        resize_mode=edit_pb2.RESIZE_MODE_FIT,
        scheduler=edit_pb2.SCHEDULER_EULER_ANCESTRAL,
        temperature=0.5,
        template=2,
        noise_source=edit_pb2.NOISE_SOURCE_TORCH,
        image_tokens=edit_pb2.IMAGE_TOKENS_FREE,
        negative_prompt="blurred",
        preview_interval=5,
        output_format=edit_pb2.OUTPUT_FORMAT_JPEG,
        output_quality=80,
        keep_on_disconnect=True,
        exif_orientation=edit_pb2.EXIF_ORIENTATION_IGNORE,
        alpha_mode=edit_pb2.ALPHA_MODE_DROP,
        control_tokens=True,
        no_cache=True,
        priority=edit_pb2.PRIORITY_BATCH,
        caller="studio",
        adapter="cats",
        adapter_scale=0.5,
        route_key="somebody",
        replay=edit_pb2.Replay(initial_latents=tensor, step_noise=[tensor, tensor]),
    )


def test_the_client_knows_every_option_of_the_protocol() -> None:
    fields = {field.name for field in edit_pb2.EditOptions.DESCRIPTOR.fields} - {"replay"}
    fields |= {field.name for field in edit_pb2.Replay.DESCRIPTOR.fields}
    assert fields == EditOptions.__annotations__.keys()


@pytest.mark.parametrize(
    ("choices", "enum"),
    [
        (AlphaMode, edit_pb2.AlphaMode),
        (ExifOrientation, edit_pb2.ExifOrientation),
        (ImageTokens, edit_pb2.ImageTokens),
        (OutputFormat, edit_pb2.OutputFormat),
        (Priority, edit_pb2.Priority),
        (ResizeMode, edit_pb2.ResizeMode),
        (Scheduler, edit_pb2.Scheduler),
    ],
)
def test_the_client_knows_every_choice_of_the_protocol(choices: Any, enum: Any) -> None:
    names = [name for name in enum.DESCRIPTOR.values_by_name if not name.endswith("_UNSPECIFIED")]
    assert [name.lower() for name in names] == [
        f"{snake(enum.DESCRIPTOR.name)}_{choice}" for choice in get_args(choices)
    ]


def snake(name: str) -> str:
    return re.sub("(?<=.)(?=[A-Z])", "_", name).lower()


def test_none_and_nothing_are_the_same() -> None:
    everything = dict.fromkeys(EditOptions.__annotations__)
    assert to_message(everything) == to_message({})  # type: ignore[arg-type]


def test_zero_is_not_nothing() -> None:
    assert to_message({"seed": 0}).HasField("seed")
    assert to_message({"text_guidance": 0}).HasField("text_guidance")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"step": 3}, TypeError, "'step'"),
        ({"scheduler": "dpm"}, ValueError, "'scheduler': 'dpm' is none of euler_ancestral, euler, ddim"),
        ({"scheduler": "unspecified"}, ValueError, "'scheduler'"),
        ({"steps": -1}, ValueError, "'steps'"),
        ({"steps": "many"}, TypeError, "'steps'"),
        ({"seed": 2**64}, ValueError, "'seed'"),
        ({"resolution": (64,)}, ValueError, "'resolution'"),
        ({"initial_latents": 3}, AttributeError, "'initial_latents'"),
    ],
)
def test_what_cannot_be_sent_is_named(options: EditOptions, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        to_message(options)
