"""The text-to-image network with its facts: prompts and seeds to pictures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imgtx.errors import UsageError
from imgtx.models.contract import Conditions
from imgtx.models.info import ModelInfo
from imgtx.models.text_to_image import TextState, TextToImage
from imgtx.models.text_to_image_config import GUIDANCE, STEPS
from imgtx.models.text_to_image_sampler import GUIDANCE_INTERVAL, Solver, dpm_solver, guided, noise_of
from imgtx.models.text_to_image_tokenizer import PAD, Tokenizer, Tokens

MAX_STEPS = 1000
MAX_SEED = 2**63 - 1


class TextToImageModel(nn.Module):
    """A text-to-image network with its facts. `digest` is the SHA-256 of the weight file in hex.

    `tokenizer(prompt, style)` says how many tokens of a prompt would be cut.
    """

    def __init__(self, network: TextToImage, info: ModelInfo, digest: str):
        super().__init__()
        self.network, self.info, self.digest = network, info, digest
        config = network.config
        self.tokenizer = Tokenizer(config.vocabulary, config.max_tokens)

    @property
    def side(self) -> int:
        """Height and width in pixels of every picture."""
        return self.network.config.side

    @property
    def words(self) -> tuple[str, ...]:
        """The words that it knows; others are spelled, and it was trained on few of them."""
        return self.network.config.vocabulary

    @property
    def styles(self) -> tuple[str, ...]:
        """The drawing styles that `style` may name."""
        return self.network.config.styles

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int = STEPS,
        guidance: float | Sequence[float] = GUIDANCE,
        negative: str | Sequence[str] = "",
        style: str | Sequence[str] = "",
        size: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """Draw a picture for each prompt: (B, S, S, 3) uint8.

        A picture depends on its prompt, seed, steps, guidance, negative prompt and style, never on its batch: noise
        comes from a generator per picture. steps: evaluations of the network. guidance: 1 follows the prompt alone,
        more exaggerates it. negative: what to guide away from. style: one of `styles`, or "" for any. size: (width,
        height), which must be the network's. guidance, negative and style are one for all, or one for each prompt.
        Raises UsageError for what the model cannot draw.
        """
        count = len(prompts)
        self._check(count, seeds, steps, size)
        strengths, negatives, styles = each(guidance, count), each(negative, count), each(style, count)
        for name in styles:
            self._check_style(name)
        if not count:
            return np.empty((0, self.side, self.side, 3), np.uint8)
        wanted = [self.tokenizer(prompt, name) for prompt, name in zip(prompts, styles, strict=True)]
        pixels = self.draw(wanted, [self.tokenizer(text) for text in negatives], seeds, steps, strengths)
        levels = (pixels * 255).round().to(torch.uint8)
        return levels.permute(0, 2, 3, 1).cpu().numpy()

    @torch.no_grad()
    def draw(
        self,
        wanted: Sequence[Tokens],
        unwanted: Sequence[Tokens],
        seeds: Sequence[int],
        steps: int,
        guidance: Sequence[float],
        solver: Solver = dpm_solver,
    ) -> Tensor:
        """As `sample`, from tokens: (B, 3, S, S) float32 in [0, 1].

        solver: `dpm_solver`, or `heun` to compare it with.
        """
        weight = self.network.embed.weight
        both = self.encode([*wanted, *unwanted])
        count = len(wanted)
        strength = torch.tensor(list(guidance), dtype=torch.float32, device=weight.device)[
            :, None, None, None
        ]
        alone = part(both, count)

        def predict(z: Tensor, time: float) -> Tensor:
            within = GUIDANCE_INTERVAL[0] <= time <= GUIDANCE_INTERVAL[1] and bool((strength != 1).any())
            pictures = (torch.cat([z, z]) if within else z).to(weight.dtype)
            moment = torch.full((len(pictures),), time, device=weight.device)
            x = self.network(pictures, moment, both if within else alone).float()
            if not within:
                return x
            with_prompt, without = x.chunk(2)
            return guided(with_prompt, without, strength)

        noise = noise_of(seeds, self.side).to(weight.device)
        return (solver(predict, noise, steps) / 2 + 0.5).clamp(0.0, 1.0)

    def encode(self, prompts: Sequence[Tokens]) -> TextState:
        """Return what the decoder needs of prompts. All are padded to one length, whatever the batch."""
        device = self.network.embed.weight.device
        numbers = np.full((len(prompts), self.tokenizer.max_tokens), PAD)
        for row, prompt in zip(numbers, prompts, strict=True):
            row[: len(prompt.numbers)] = prompt.numbers
        return self.network.encode_text(torch.from_numpy(numbers).to(device))

    def prepare(self, conditions: dict[str, Any] | None = None) -> None:
        """Return the state that is computed once per job: there is none, each picture has conditions of its own."""

    def forward(self, batch: Tensor, state: None = None, rows: Sequence[Conditions] = ()) -> Tensor:
        """Draw a picture for each row of conditions: (B, 3, S, S) in [0, 1], whatever is in `batch`.

        Each of `rows` has `prompt` and `seed`, and may have `steps`, `guidance`, `negative` and `style` (`sample`).
        """
        pictures = torch.zeros(batch.shape, dtype=torch.float32, device=batch.device)
        by_steps: dict[int, list[int]] = {}
        for at, row in enumerate(rows):
            by_steps.setdefault(row.get("steps", STEPS), []).append(at)
        for steps, places in by_steps.items():
            chosen = [rows[at] for at in places]
            pictures[places] = self.draw(
                [self.tokenizer(row["prompt"], row.get("style", "")) for row in chosen],
                [self.tokenizer(row.get("negative", "")) for row in chosen],
                [row["seed"] for row in chosen],
                steps,
                [row.get("guidance", GUIDANCE) for row in chosen],
            )
        return pictures

    def tokens_lost(self, row: Conditions) -> int:
        """Return how many tokens of a row's prompt are cut off."""
        return self.tokenizer(row["prompt"], row.get("style", "")).cut

    def unknown_words(self, row: Conditions) -> list[str]:
        """Return the words of a row's prompt and negative prompt that are spelled instead of known, each once."""
        texts = (row["prompt"], row.get("negative", ""))
        return list(dict.fromkeys(word for text in texts for word in self.tokenizer.unknown(text)))

    def _check(self, count: int, seeds: Sequence[int], steps: int, size: tuple[int, int] | None) -> None:
        if len(seeds) != count:
            raise UsageError(f"{count} prompts and {len(seeds)} seeds: expected a seed for each prompt")
        for seed in seeds:
            if not 0 <= seed <= MAX_SEED:
                raise UsageError(f"seed {seed}: expected 0 to {MAX_SEED}")
        if not 1 <= steps <= MAX_STEPS:
            raise UsageError(f"{steps} steps: expected 1 to {MAX_STEPS}; {STEPS} are enough for most prompts")
        if size is not None and tuple(size) != (self.side, self.side):
            raise UsageError(
                f"{self.info.name} draws {self.side} x {self.side} pixels, not {size[0]} x {size[1]}: leave the size "
                f"out, and enlarge with imgtx upscale"
            )

    def _check_style(self, name: str) -> None:
        if name and name not in self.styles:
            raise UsageError(
                f"unknown style {name!r}: expected one of {', '.join(self.styles) or '(none)'}, or none for any"
            )


def each(values: Any, count: int) -> list[Any]:
    """Return a list of `count`: the values themselves, or one value for all. UsageError for another number of them."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        return [values] * count
    if len(values) != count:
        raise UsageError(f"{len(values)} values for {count} prompts: expected one for each, or one for all")
    return list(values)


def part(text: TextState, count: int) -> TextState:
    """Return the state of the first `count` prompts."""
    return TextState(
        text.pooled[:count],
        text.bias[:count],
        tuple(key[:count] for key in text.keys),
        tuple(value[:count] for value in text.values),
    )
