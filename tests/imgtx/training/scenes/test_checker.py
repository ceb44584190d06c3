"""The program that checks pictures: right on damaged renderings of the truth, and not on what is not there."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from imgtx.training.scenes.captions import random_description
from imgtx.training.scenes.checker import ATTRIBUTES, judge
from imgtx.training.scenes.description import COLOURS, RELATIONS, SHAPES, Description, Group
from imgtx.training.scenes.drawing import draw

SCENES = 120


def damaged(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    blurred = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.0)))
    noise = rng.normal(0, rng.uniform(0, 12), picture.shape)
    return (np.asarray(blurred) + noise).clip(0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Description, np.ndarray]]:
    rng = np.random.default_rng(1)
    descriptions = [random_description(rng) for _ in range(SCENES)]
    return [(description, damaged(draw(description, rng), rng)) for description in descriptions]


def test_the_truth_is_found_under_blur_and_noise(scenes):
    verdicts = [judge(picture, description) for description, picture in scenes]
    asked, right = Counter(), Counter()
    for verdict in verdicts:
        asked.update(verdict.keys())
        right.update(name for name, found in verdict.items() if found)
    assert set(asked) == set(ATTRIBUTES)
    assert all(right[name] >= 0.98 * asked[name] for name in ATTRIBUTES), right
    assert sum(all(verdict.values()) for verdict in verdicts) >= 0.98 * SCENES


def test_a_picture_of_something_else_is_found_out(scenes):
    pictures = [picture for _, picture in scenes]
    verdicts = [judge(picture, scenes[i - 1][0]) for i, picture in enumerate(pictures)]
    assert sum(all(verdict.values()) for verdict in verdicts) <= 0.01 * SCENES
    # By chance: one of twelve colours, one of eight shapes, both together.
    found = Counter(name for verdict in verdicts for name, right in verdict.items() if right)
    assert found["colour"] <= 0.15 * SCENES
    assert found["shape"] <= 0.2 * SCENES
    assert found["pairing"] <= 0.05 * SCENES


def changed(description: Description, attribute: str) -> Description:
    """Return the description with one word wrong."""
    first, *rest = description.groups

    def with_first(**change) -> Description:
        return replace(description, groups=(replace(first, **change), *rest))

    def another(value: str, among) -> str:
        names = sorted(among)
        return names[(names.index(value) + 1) % len(names)]

    match attribute:
        case "count":
            return with_first(count=first.count % 5 + 1)
        case "colour":
            return with_first(colour=another(first.colour, COLOURS))
        case "shape":
            return with_first(shape=another(first.shape, SHAPES))
        case "size":
            return with_first(size="large" if first.size == "small" else "small")
        case "relation":
            return replace(description, relation=RELATIONS[description.relation])
        case "background":
            return replace(description, background=another(description.background, COLOURS))
        case "position":
            return replace(description, position="center" if description.position != "center" else "top left")
    raise AssertionError(attribute)


@pytest.mark.parametrize(
    "attribute", ["count", "colour", "shape", "size", "position", "relation", "background"]
)
def test_one_wrong_word_is_found_out(scenes, attribute):
    said = {
        "size": lambda d: d.groups[0].size, "position": lambda d: d.position, "relation": lambda d: d.relation,
        "background": lambda d: d.background,
    }.get(attribute, lambda d: True)  # fmt: skip
    asked = [(description, picture) for description, picture in scenes if said(description)][:30]
    assert len(asked) >= 20
    missed = [d for d, picture in asked if judge(picture, changed(d, attribute))[attribute]]
    assert len(missed) <= 0.02 * len(asked), missed


def test_swapped_colours_are_no_pairing():
    rng = np.random.default_rng(2)
    scene = Description((Group("red", "circle"), Group("blue", "square")))
    swapped = Description((Group("blue", "circle"), Group("red", "square")))
    verdict = judge(draw(scene, rng), swapped)
    assert (verdict["colour"], verdict["shape"], verdict["pairing"]) == (True, True, False)


def test_noise_and_nothing_are_no_scene():
    rng = np.random.default_rng(3)
    scene = Description((Group("red", "circle"),))
    for picture in (rng.integers(0, 256, (64, 64, 3)).astype(np.uint8), np.full((64, 64, 3), 200, np.uint8)):
        assert not any(judge(picture, scene).values())
