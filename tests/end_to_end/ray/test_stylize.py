"""Style transfer end to end on S3: copies of local styles, keys by style, changed styles, verify, retry."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import imgtx
from imgtx.codecs import decode
from jobs.inspect.status import run_verify
from jobs.run.driver import run
from jobs.run.tally import Tally
from pipeline.runs import last_spec
from pipeline.spec import RunSpec
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import IMAGES
from tests.support.archive import assert_sound, look
from tests.support.small_style import painting, save_tiny_style
from tests.support.zoo import photo, saved


def ignore(tally: Tally) -> None:
    pass


@pytest.fixture
def spec(bucket: str, tmp_path: Path) -> RunSpec:
    """Two images and a broken one in S3, and three styles: two in S3 and the first of them on this machine."""
    source, styles = open_store(f"{bucket}/in"), open_store(f"{bucket}/styles")
    source.write("2019/a.png", saved(photo(40, 52)))
    source.write("b.png", saved(photo(30, 20, 1)))
    source.write("bad.png", b"none")
    for number, name in enumerate(("monet", "munch")):
        styles.write(f"{name}.png", saved(painting(number)))
    (tmp_path / "monet.png").write_bytes(saved(painting(0)))
    uri = {
        "source": source.uri,
        "destination": f"{bucket}/out",
        "model": save_tiny_style(tmp_path / "s.safetensors"),
    }
    rest = {"gpus": 0, "workers": 1, "engine": "ray", "max_failed": "2"}
    return RunSpec(**uri, task="style-transfer", settings={"style": str(tmp_path / "monet.png")}, **rest)


def pixels(store: Store, key: str) -> np.ndarray:
    return decode(store.read(IMAGES + key), max_pixels=10**6).pixels


def test_a_local_style_is_kept_and_a_changed_style_in_s3_reruns_its_images(spec: RunSpec, bucket: str):
    summary = run(spec, ignore)
    assert (summary.written, summary.failed, summary.accounted) == (2, 1, True)
    out, stylise = open_store(spec.destination), imgtx.load(spec.model)
    np.testing.assert_array_equal(pixels(out, "2019/a.png"), stylise(photo(40, 52), style=painting(0)))
    np.testing.assert_array_equal(pixels(out, "b.png"), stylise(photo(30, 20, 1), style=painting(0)))

    # From anywhere: the original is gone, the run kept a copy in S3.
    Path(spec.settings["style"]).unlink()
    kept = last_spec(spec.destination, None)
    assert kept.settings["style"].startswith(f"{bucket}/out/inputs/")
    assert run_verify(spec.destination, None, deep=True, fix=False).problems.num_rows == 0
    open_store(spec.source).write("bad.png", saved(photo(20, 20)))
    assert run(kept, ignore, retry_failed=True).written == 1
    found = look(spec.destination)
    assert_sound(found)
    assert {row["inputs"][0]["key"] for row in found.rows.values()} == {"monet.png"}

    several = replace(spec, destination=f"{bucket}/several", settings={"styles": f"{bucket}/styles"})
    assert run(several, ignore).written == 6
    first = look(several.destination)
    assert_sound(first)
    # The same style and image, the same pixels.
    assert first.outputs["monet/b.png"] == found.outputs["b.png"]
    assert first.outputs["munch/b.png"] != found.outputs["b.png"]
    open_store(f"{bucket}/styles").write("munch.png", saved(painting(7)))
    assert run_verify(several.destination, None, deep=True, fix=False).counts["changed"] == 3
    again = run(several, ignore)
    assert (again.written, again.current) == (3, 3)
    second = look(several.destination)
    changed = {key for key, digest in second.outputs.items() if first.outputs[key] != digest}
    assert changed == {"munch/2019/a.png", "munch/b.png", "munch/bad.png"}
    np.testing.assert_array_equal(
        pixels(open_store(several.destination), "munch/b.png"), stylise(photo(30, 20, 1), style=painting(7))
    )
