"""A whole edit in the way the reference computes it.

Step-wise decoding of the reply with a key/value cache, low-rank changes beside their layers, text keys and
values computed anew for every branch in every step, the empty text encoded for every edit.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from diffusers import EulerAncestralDiscreteScheduler
from PIL import Image
from transformers import DynamicCache

import networks
from connector import Bim, QFormer

PROMPT_TOKENS = 86
REPLY_TOKENS = 10
"""Tokens of the reply before its image tokens."""
TEXT_GUIDANCE = 7.5
IMAGE_GUIDANCE = 1.5
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class Reference:
    """SmartEdit-7B with fewer layers."""

    def __init__(self, layers: int, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.vision = networks.vision_encoder()
        self.projector = torch.nn.Linear(1024, 4096)
        self.llama = networks.language_model(layers)
        networks.add_lora(self.llama)
        self.qformer, self.bim = QFormer(4096), Bim()
        self.text = networks.text_encoder()
        self.vae, self.unet = networks.vae(), networks.unet()
        self.feature = torch.zeros(1)
        self.unet.conv_in.register_forward_hook(lambda _module, _inputs, output: output + self.feature)

    def edit(self, size: int, steps: int) -> dict[str, float]:
        """Edits a picture; the seconds that each stage took."""
        spent = {}

        def timed(name: str, work: Callable[[], torch.Tensor]) -> torch.Tensor:
            start = time.perf_counter()
            result = work()
            spent[name] = time.perf_counter() - start
            return result

        pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels)
        image = timed("vision_encoder", lambda: self._see(picture))
        states = timed("language_model", lambda: self.reply(image))
        embeds = timed("connector", lambda: self._connect(states, image, size // 8))
        null = timed("text_encoder", self._null)
        latents = timed("vae_encoder", lambda: self._encode(picture))
        latents = timed("denoiser", lambda: self._denoise(torch.cat([embeds, null, null]), latents, steps))
        timed("vae_decoder", lambda: self._decode(latents))
        return spent

    def _see(self, picture: Image.Image) -> torch.Tensor:
        small = np.asarray(picture.resize((224, 224), Image.Resampling.BICUBIC), dtype=np.float32) / 255
        pixels = torch.from_numpy((small - MEAN) / STD).permute(2, 0, 1)[None].to(self.dtype)
        return self.vision(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]

    def reply(self, image: torch.Tensor, spent: dict[str, float] | None = None) -> torch.Tensor:
        """Feeds the prompt, then one token at a time; the states of the image tokens, `[1, 32, h]`.

        Leaves the seconds of prompt and reply in `spent`.
        """
        start = time.perf_counter()
        model, embed = self.llama.model, self.llama.get_input_embeddings()
        ids = torch.arange(PROMPT_TOKENS)[None]
        parts = [embed(ids[:, :30]), self.projector(image), embed(ids[:, 30:])]
        cache = DynamicCache(config=self.llama.config)
        hidden = model(inputs_embeds=torch.cat(parts, dim=1), cache=cache).last_hidden_state
        prompt = time.perf_counter() - start
        first = networks.VOCABULARY - networks.IMAGE_TOKENS
        states = []
        # Random weights reply at random: the choice is made as ever, and then the expected token is fed.
        for token in [*range(100, 100 + REPLY_TOKENS), *range(first, networks.VOCABULARY)]:
            self.llama.lm_head(hidden[:, -1:]).argmax(dim=-1).item()
            hidden = model(input_ids=torch.tensor([[token]]), cache=cache).last_hidden_state
            if token >= first:
                states.append(hidden)
        self.llama.lm_head(hidden[:, -1:]).argmax(dim=-1).item()
        if spent is not None:
            spent |= {"prompt": prompt, "reply": time.perf_counter() - start - prompt}
        return torch.cat(states, dim=1)

    def _connect(self, states: torch.Tensor, image: torch.Tensor, side: int) -> torch.Tensor:
        query = self.qformer(states)
        self.feature, text = self.bim(image, query, (side, side))
        return query + 0.5 * text

    def _null(self) -> torch.Tensor:
        ids = torch.tensor([[49_406, *[49_407] * 76]])
        return self.text(input_ids=ids).last_hidden_state

    def _encode(self, picture: Image.Image) -> torch.Tensor:
        pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        return self.vae.encode(pixels.to(self.dtype)).latent_dist.mode()

    def _denoise(self, embeds: torch.Tensor, image: torch.Tensor, steps: int) -> torch.Tensor:
        scheduler = EulerAncestralDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        )
        scheduler.set_timesteps(steps)
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(image.shape, generator=generator).to(self.dtype) * scheduler.init_noise_sigma
        images = torch.cat([image, image, torch.zeros_like(image)])
        for index, timestep in enumerate(scheduler.timesteps):
            scaled = scheduler.scale_model_input(torch.cat([latents] * 3), timestep)
            sample = torch.cat([scaled, images], dim=1)
            noise = self.unet(sample, timestep, encoder_hidden_states=embeds, return_dict=False)[0]
            sigma = scheduler.sigmas[index]
            original = torch.cat([latents] * 3) - sigma * noise
            text, picture, neither = original.chunk(3)
            guided = neither + TEXT_GUIDANCE * (text - picture) + IMAGE_GUIDANCE * (picture - neither)
            noise = ((guided - latents) / -sigma).to(self.dtype)
            latents = scheduler.step(noise, timestep, latents, generator=generator, return_dict=False)[0]
            latents = latents.to(self.dtype)
        return latents

    def _decode(self, latents: torch.Tensor) -> np.ndarray:
        image = self.vae.decode(latents / 0.18215, return_dict=False)[0]
        pixels = (image / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float().numpy()
        return (255 * pixels).round().astype(np.uint8)
