"""A precision that the processor emulates is refused before anything heavy is imported."""

from pathlib import Path

import pytest

import imgtx
from imgtx.errors import UsageError
from imgtx.inference import processor
from imgtx.inference.processor import check_precision, read_processor, this_processor

XEON = "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: fpu avx2 avx512f avx512_vnni\nbugs\t\t:\n"


@pytest.mark.parametrize(
    ("cpuinfo", "emulated"),
    [
        (XEON, {"bfloat16", "float16"}),
        ("flags\t\t: fpu avx512f avx512_bf16\n", {"float16"}),
        ("flags\t\t: fpu avx512f avx512_bf16 avx512_fp16 amx_bf16\n", set()),
        ("Features\t: fp asimd\n", {"bfloat16", "float16"}),
        ("Features\t: fp asimd asimdhp bf16\n", set()),
        ("flags\t\t:\nmodel name\t: without flags\n", set()),
        ("", set()),
    ],
)
def test_flags_say_what_is_emulated(cpuinfo: str, emulated: set[str]):
    assert read_processor(cpuinfo).emulated == emulated


def test_a_processor_is_named_with_what_it_has():
    assert str(read_processor(XEON)) == "Xeon (avx2, avx512f)"
    assert str(read_processor("model name\t: Plain\n")) == "Plain"


def test_a_machine_without_cpuinfo_emulates_nothing_that_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "absent")
    assert not this_processor().emulated


@pytest.fixture
def old_processor(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "cpuinfo").write_text(XEON)
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")


@pytest.mark.usefixtures("old_processor")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_loading_refuses_what_is_emulated(precision):
    with pytest.raises(UsageError, match=rf"precision {precision}: .*Xeon.*emulates it.*use float32"):
        imgtx.load("sr-x2", device="cpu", precision=precision)


@pytest.mark.usefixtures("old_processor")
def test_gpus_and_float32_are_not_refused():
    check_precision("bfloat16", "cuda:0")
    check_precision("float32", "cpu")
