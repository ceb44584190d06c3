"""Noise by place: windows agree where they overlap."""

import torch

from imgtx.models.noise import BLOCK, noise_at


def test_windows_agree_where_they_overlap():
    whole = noise_at("a", (3, 2 * BLOCK, 3 * BLOCK), -BLOCK // 2, 5)
    part = noise_at("a", (3, 40, 90), 10, 60)
    top, left = 10 + BLOCK // 2, 55
    assert torch.equal(part, whole[:, top : top + 40, left : left + 90])
    assert abs(whole.mean()) < 0.02
    assert abs(whole.std() - 1) < 0.02


def test_seeds_differ():
    one, other = (noise_at(seed, (1, 64, 64), 0, 0) for seed in "ab")
    assert abs((one * other).mean()) < 0.1
