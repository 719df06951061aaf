"""The real server through Triton's own client: the Open Inference Protocol."""

import asyncio
import io
import queue
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from PIL import Image
from tritonclient.utils import InferenceServerException

from smartedit import Client

from servers import Server, wait_for

Array = npt.NDArray[Any]
OPTIONS = {"seed": 7, "steps": 2, "width": 64, "height": 64}
INSTRUCTION = "Change the left cat to a fox"
VAE_DECODER = "default/vae_decoder"
TIMEOUT = 120


@pytest.fixture
def inference(server: Server) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(server.address)
    yield client
    client.close()


def tensor(name: str, array: Array, datatype: str) -> Any:
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return given


def edit_inputs(picture: Image.Image) -> list[Any]:
    file = io.BytesIO()
    picture.save(file, "PNG")
    strings = {"image": file.getvalue(), "instruction": INSTRUCTION.encode()}
    return [tensor(name, np.array([string], np.object_), "BYTES") for name, string in strings.items()]


def opened(image: bytes) -> Image.Image:
    return Image.open(io.BytesIO(image))


def latents(batch: int = 1) -> Any:
    values = np.random.default_rng(7).standard_normal((batch, 4, 8, 8), np.float32)
    return tensor("latents", values, "FP32")


def test_the_server_tells_of_itself(inference: triton.InferenceServerClient) -> None:
    assert inference.is_server_live()
    assert inference.is_server_ready()
    metadata = inference.get_server_metadata()
    assert metadata.name == "smartedit"
    assert "statistics" in metadata.extensions


def test_models(inference: triton.InferenceServerClient) -> None:
    def states() -> dict[str, str]:
        return {model.name: model.state for model in inference.get_model_repository_index().models}

    wait_for(lambda: set(states().values()) == {"READY"}, "every model is ready")
    models = states()
    assert {"default", "narrow", VAE_DECODER, "narrow/denoiser"} <= models.keys()
    for name in models:
        assert inference.is_model_ready(name)
        metadata = inference.get_model_metadata(name)
        config = inference.get_model_config(name).config
        assert (metadata.name, config.name, list(metadata.versions)) == (name, name, ["1"])
        assert [given.name for given in config.input] == [given.name for given in metadata.inputs]
        assert [list(given.dims) for given in config.output] == [
            list(given.shape) for given in metadata.outputs
        ]
        assert config.max_batch_size == 0


def test_an_edit(inference: triton.InferenceServerClient, client: Client, picture: Image.Image) -> None:
    result = inference.infer(
        "default", edit_inputs(picture), request_id="mine", parameters=OPTIONS, client_timeout=TIMEOUT
    )
    (image,) = result.as_numpy("image")
    assert opened(image).size == (64, 64)
    response = result.get_response()
    assert (response.id, response.parameters["seed"].int64_param) == ("mine", 7)
    native = client.edit(picture, INSTRUCTION, seed=7, steps=2, resolution=(64, 64))
    assert image == native.data
    assert result.as_numpy("reply")[0].decode() == native.reply


def test_only_what_is_asked_for(inference: triton.InferenceServerClient, picture: Image.Image) -> None:
    wanted = [triton.InferRequestedOutput("image")]
    result = inference.infer("default", edit_inputs(picture), outputs=wanted, parameters=OPTIONS)
    assert [output.name for output in result.get_response().outputs] == ["image"]
    assert result.as_numpy("reply") is None


def test_a_stage(inference: triton.InferenceServerClient) -> None:
    images = inference.infer(VAE_DECODER, [latents(2)]).as_numpy("image")
    assert (images.shape, images.dtype) == ((2, 3, 64, 64), np.float32)
    assert np.isfinite(images).all()
    # An encoder takes what a decoder gives.
    inputs = [tensor("image", images.clip(-1, 1), "FP32")]
    assert inference.infer("default/vae_encoder", inputs).as_numpy("latents").shape == (2, 4, 8, 8)


def test_whole_numbers(inference: triton.InferenceServerClient) -> None:
    (given,) = inference.get_model_metadata("default/text_encoder").inputs
    ids = np.zeros((2, given.shape[1]), np.int64)
    states = inference.infer("default/text_encoder", [tensor("input_ids", ids, "INT64")])
    assert states.as_numpy("hidden_states").shape[:2] == ids.shape


@pytest.mark.parametrize(
    ("model", "version", "code"),
    [
        ("nope", "", "StatusCode.NOT_FOUND"),
        ("default/nope", "", "StatusCode.NOT_FOUND"),
        (VAE_DECODER, "7", "StatusCode.NOT_FOUND"),
        (VAE_DECODER, "abc", "StatusCode.INVALID_ARGUMENT"),
    ],
)
def test_models_that_there_are_not(
    inference: triton.InferenceServerClient, model: str, version: str, code: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        inference.infer(model, [latents()], model_version=version)
    assert caught.value.status() == code
    with pytest.raises(InferenceServerException) as caught:
        inference.get_model_metadata(model, version)
    assert caught.value.status() == code
    if code == "StatusCode.NOT_FOUND":
        assert not inference.is_model_ready(model, version)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (tensor("latent", np.zeros((1, 4, 8, 8), np.float32), "FP32"), "`latents`"),
        (tensor("latents", np.zeros((1, 4, 8, 8), np.float64), "FP64"), "FP64"),
        (tensor("latents", np.zeros((1, 5, 8, 8), np.float32), "FP32"), "[1, 5, 8, 8]"),
        (tensor("latents", np.full((1, 4, 8, 8), np.nan, np.float32), "FP32"), "not finite"),
        (tensor("latents", np.zeros((65, 4, 1, 1), np.float32), "FP32"), "batch 65"),
    ],
)
def test_inputs_that_do_not_fit(inference: triton.InferenceServerClient, given: Any, words: str) -> None:
    with pytest.raises(InferenceServerException) as caught:
        inference.infer(VAE_DECODER, [given])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert words in caught.value.message()


def test_parameters_that_there_are_not(inference: triton.InferenceServerClient, picture: Image.Image) -> None:
    with pytest.raises(InferenceServerException, match=r"parameters\.stpes") as caught:
        inference.infer("default", edit_inputs(picture), parameters={"stpes": 2})
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_loading_is_not_offered_unless_it_is_configured(inference: triton.InferenceServerClient) -> None:
    for call in (inference.load_model, inference.unload_model):
        with pytest.raises(InferenceServerException, match="configuration") as caught:
            call("default")
        assert caught.value.status() == "StatusCode.PERMISSION_DENIED"


def test_statistics(inference: triton.InferenceServerClient) -> None:
    def counted() -> Any:
        (stats,) = inference.get_inference_statistics(VAE_DECODER).model_stats
        return stats

    before = counted()
    for _ in range(3):
        inference.infer(VAE_DECODER, [latents()])
    after = counted()
    assert after.inference_count - before.inference_count == 3
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert after.last_inference > before.last_inference


class Stream:
    """What comes out of a stream, in the order in which it comes."""

    def __init__(self, inference: triton.InferenceServerClient) -> None:
        self.answers: queue.Queue[tuple[Any, InferenceServerException | None]] = queue.Queue()
        inference.start_stream(lambda result, error: self.answers.put((result, error)))

    def next(self) -> tuple[Any, InferenceServerException | None]:
        return self.answers.get(timeout=TIMEOUT)


def test_a_stream_goes_on_after_an_error(
    inference: triton.InferenceServerClient, picture: Image.Image
) -> None:
    stream = Stream(inference)
    inference.async_stream_infer("nope", [latents()])
    _, error = stream.next()
    assert error is not None
    assert "unknown model" in error.message()
    inference.async_stream_infer("default", edit_inputs(picture), request_id="a", parameters=OPTIONS)
    result, error = stream.next()
    assert error is None
    response = result.get_response()
    assert (response.id, response.parameters["triton_final_response"].bool_param) == ("a", True)
    inference.stop_stream()


def test_progress(inference: triton.InferenceServerClient, picture: Image.Image) -> None:
    stream = Stream(inference)
    parameters = {**OPTIONS, "progress": True, "preview_interval": 1}
    inference.async_stream_infer("default", edit_inputs(picture), parameters=parameters)
    events, previews = [], 0
    while True:
        result, error = stream.next()
        assert error is None
        about = result.get_response().parameters
        if about["triton_final_response"].bool_param:
            break
        events.append(about["event"].string_param)
        previews += result.as_numpy("image") is not None
    assert {"accepted", "stage_started", "reply", "stage_finished"} <= set(events)
    assert previews <= events.count("step")
    assert opened(result.as_numpy("image")[0]).size == (64, 64)
    inference.stop_stream()


async def test_many_at_once(server: Server, picture: Image.Image) -> None:
    async with triton_aio.InferenceServerClient(server.address) as inference:
        alone = await inference.infer("default", edit_inputs(picture), parameters=OPTIONS)
        calls = [inference.infer("default", edit_inputs(picture), parameters=OPTIONS) for _ in range(3)]
        calls += [inference.infer(VAE_DECODER, [latents()]) for _ in range(5)]
        results = await asyncio.gather(*calls)
    assert all(result.as_numpy("image")[0] == alone.as_numpy("image")[0] for result in results[:3])
    images = [result.as_numpy("image") for result in results[3:]]
    assert all(np.array_equal(image, images[0]) for image in images)


async def test_a_stream_of_coroutines(server: Server) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for index in range(4):
            yield {"model_name": VAE_DECODER, "inputs": [latents()], "request_id": str(index)}

    async with triton_aio.InferenceServerClient(server.address) as inference:
        found = set()
        async for result, error in inference.stream_infer(requests()):
            assert error is None
            found.add(result.get_response().id)
    assert found == {"0", "1", "2", "3"}
