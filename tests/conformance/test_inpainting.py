"""LaMa through spandrel: a mask beside the image, one image per call, known pixels unchanged."""

import numpy as np
import pytest
import torch

from imgtx.degradations.holes import random_mask
from imgtx.errors import UsageError
from imgtx.inference.predictor import Predictor
from imgtx.models.adapters.spandrel import import_spandrel
from imgtx.models.references import load_model, read_info
from pipeline.job import make_job
from pipeline.spec import RunSpec
from tests.conformance.conftest import without_spandrel
from tests.support.small_models import noise

pytestmark = without_spandrel


@pytest.fixture(scope="module")
def lama(tmp_path_factory) -> str:
    """Write random weights in the only shape of LaMa that spandrel knows: 51 million numbers, in float16."""
    import_spandrel()
    from spandrel.architectures.LaMa import LaMa

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LaMa(in_nc=4, out_nc=3)
    path = tmp_path_factory.mktemp("lama") / "big-lama.pth"
    tensors = {
        name.replace("model.model", "generator.model"): t.half() for name, t in network.state_dict().items()
    }
    torch.save({"state_dict": tensors}, path)
    return str(path)


def test_lama_fills_holes_through_the_same_pipeline(lama):
    info, digest = read_info(lama)
    assert (info.task, info.masks, info.in_channels, info.out_channels, info.batches) == (
        "inpainting", True, 4, 3, False,
    )  # fmt: skip
    job = make_job(RunSpec("in", "out", "inpainting", lama, {"mask_color": "#ff00ff"}), info, digest)
    assert job.recipe.model_digest == digest
    with pytest.raises(UsageError, match="fills holes: give their place by"):
        make_job(RunSpec("in", "out", "inpainting", lama), info, digest)

    predictor = Predictor(load_model(lama), batch=2)
    for shape in [(61, 50, 3), (40, 33), (32, 48, 4)]:
        image, mask = noise(*shape), random_mask(np.random.default_rng(1), *shape[:2], "thin")
        output = predictor(image, mask)
        np.testing.assert_array_equal(output[~mask], image[~mask])
        colours = output[mask] if image.ndim == 2 else output[mask][:, :3]
        assert (colours != (image[mask] if image.ndim == 2 else image[mask][:, :3])).mean() > 0.9
