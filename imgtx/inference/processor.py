"""Read what the processor can compute in: bfloat16 and float16 are slow where it emulates them.

Without torch, so that a mistake is found before anything heavy is imported.
"""

import platform
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from imgtx.errors import UsageError

CPUINFO = Path("/proc/cpuinfo")

# The flags of /proc/cpuinfo of which one is enough for products in a precision: of x86, and of ARM.
_NATIVE = {
    "bfloat16": ({"amx_bf16", "avx512_bf16"}, {"bf16"}),
    "float16": ({"amx_fp16", "avx512_fp16"}, {"asimdhp"}),
}
# The flags that say how fast a model is, widest last.
_TELLING = (
    "asimd",
    "sve",
    "avx2",
    "avx512f",
    "asimdhp",
    "bf16",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_fp16",
)


@dataclass(frozen=True)
class Processor:
    """A processor's name and the precisions that it emulates; `flags` are those that say how fast a model is."""

    name: str
    flags: tuple[str, ...] = ()
    emulated: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.flags)})" if self.flags else self.name

    def refusal(self, precision: str) -> str:
        """Return why a model does not run in `precision` here, and what to do; "" where it does."""
        if precision not in self.emulated:
            return ""
        return f"the processor here, {self}, emulates it, up to twelve times slower than float32: use float32"


def this_processor() -> Processor:
    """Return the processor of this machine."""
    return _read(CPUINFO)


@cache
def _read(cpuinfo: Path) -> Processor:
    try:
        return read_processor(cpuinfo.read_text())
    except OSError:
        return read_processor("")


def read_processor(cpuinfo: str) -> Processor:
    """Return the processor that the text of /proc/cpuinfo describes; one without flags emulates nothing."""
    name = _line(cpuinfo, "model name") or platform.processor() or platform.machine() or "unknown"
    x86, arm = (set(_line(cpuinfo, title).split()) for title in ("flags", "Features"))
    flags = x86 or arm
    emulated = {
        precision
        for precision, (of_x86, of_arm) in _NATIVE.items()
        if flags and not flags & (of_x86 if x86 else of_arm)
    }
    return Processor(name, tuple(flag for flag in _TELLING if flag in flags), frozenset(emulated))


def check_precision(precision: str, device: str) -> None:
    """Raise UsageError where a model would run in `precision` on a processor that emulates it.

    device: as torch names it; only `cpu` is checked.
    """
    if device.partition(":")[0] == "cpu" and (refusal := this_processor().refusal(precision)):
        raise UsageError(f"precision {precision}: {refusal}")


def _line(cpuinfo: str, title: str) -> str:
    match = re.search(rf"^{title}\s*:[ \t]*(.*)$", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else ""
