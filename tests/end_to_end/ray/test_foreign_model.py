"""A third-party model over a small folder, loaded from its path by real actors."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import imgtx
from imgtx.codecs import decode
from imgtx.inference.processor import this_processor
from imgtx.models.references import read_info
from imgtx.models.sidecar import write_sidecar
from jobs.run.driver import run
from jobs.run.tally import Tally
from pipeline.models.resolve import local_model
from pipeline.spec import RunSpec
from pipeline.storage.store import Store, open_store
from tests.conformance.architectures import save
from tests.conformance.conftest import save_swin2sr, save_torchscript
from tests.support.archive import assert_sound, fill, look
from tests.support.zoo import photo, saved

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("spandrel") is None, reason="spandrel is not installed"
)


def ignore(tally: Tally) -> None:
    pass


# Actors see the processor as it is: the driver must too.
@pytest.mark.usefixtures("the_real_processor")
def test_a_third_party_model_runs_resumes_and_becomes_stale_with_its_precision(source: Store, tmp_path: Path):
    keys = fill(source, 5)
    source.write("alpha.png", saved(photo(40, 50, 4)))
    model = save("Compact", tmp_path)
    spec = RunSpec(
        source.uri, str(tmp_path / "out"), model=str(model), precision="auto", gpus=0, workers=1, engine="ray"
    )
    assert run(spec, ignore).written == len(keys) + 1
    found = look(spec.destination)
    assert_sound(found)
    made = decode((tmp_path / "out/images/alpha.png").read_bytes(), max_pixels=10**6)
    expected = imgtx.load(model, device="cpu")(photo(40, 50, 4)[:, :, :3])
    np.testing.assert_array_equal(made.pixels, expected)
    # As the probe would write it: the halo leaves outputs current, another precision makes them stale.
    info, digest = read_info(model)
    write_sidecar(model, digest, replace(info, halo=16), {})
    assert run(spec, ignore).current == len(keys) + 1
    write_sidecar(model, digest, replace(info, dtypes=("float32", "bfloat16"), fast="bfloat16"), {})
    again = run(spec, ignore)
    # Where bfloat16 is emulated `auto` stays with float32.
    stale = 0 if "bfloat16" in this_processor().emulated else len(keys) + 1
    assert (again.written, again.current) == (stale, len(keys) + 1 - stale)
    assert_sound(look(spec.destination))


def test_every_kind_of_model_loads_in_an_actor_from_its_uri(bucket: str, tmp_path: Path):
    """The actor gets a reference, loads and runs the model, and returns the driver's pixels."""
    import ray

    @ray.remote
    class Actor:
        def run(self, reference: str, image: np.ndarray) -> tuple[str | None, np.ndarray]:
            predictor = imgtx.load(local_model(reference), device="cpu")
            return predictor.digest, predictor(image)

    pth, safe = save("Compact", tmp_path), save("SwinIR", tmp_path, ".safetensors")
    local = save_torchscript(tmp_path / "sharpen.pt")
    there = open_store(bucket)
    for path in (pth, safe, tmp_path / "sharpen.pt"):
        there.write(path.name, path.read_bytes())
    references = {
        "sr-x2": "sr-x2",
        f"{bucket}/{pth.name}": str(pth),
        f"spandrel:{bucket}/{safe.name}": str(safe),
        f"torchscript:{bucket}/sharpen.pt?scale=3&range=255": local,
    }
    if importlib.util.find_spec("transformers"):
        folder = save_swin2sr(tmp_path / "swin2sr")
        references[f"transformers:{folder}"] = folder
    image, actor = photo(24, 31, 3), Actor.remote()
    for reference, here in references.items():
        digest, made = ray.get(actor.run.remote(reference, image))
        expected = imgtx.load(here, device="cpu")
        assert digest == expected.digest, reference
        # The numbers of threads differ.
        np.testing.assert_allclose(made.astype(int), expected(image).astype(int), atol=1)
    ray.kill(actor)
