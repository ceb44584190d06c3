"""Why a Ray worker has no model, in one line."""

from types import SimpleNamespace

import pytest

from pipeline.engines.on_ray import _why_no_model

JOB = SimpleNamespace(spec=SimpleNamespace(model="m.safetensors"))


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (
            "imgtx.errors.UsageError: precision bfloat16: the processor here, Xeon, emulates it: use float32",
            "does not run on a worker: .*Xeon, emulates it: use float32; or take machines that have it",
        ),
        (
            "imgtx.errors.ModelError: --compile: no compiler",
            "could not be compiled by a worker: .*no compiler",
        ),
        ("FileNotFoundError: m.safetensors", "could not be loaded by a worker .*the file under this path"),
    ],
)
def test_the_line_names_the_cause(cause, message):
    from re import search

    line = _why_no_model(JOB, RuntimeError(f"The actor died\nTraceback\n{cause}\n"))
    assert search(f"^--model m.safetensors {message}", line)
    assert "\n" not in line
