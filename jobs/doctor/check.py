"""All checks of `imgtx doctor`, in the order in which they are shown."""

from imgtx.errors import ImgtxError, UsageError
from jobs.doctor.destination import check_destination
from jobs.doctor.findings import PROBLEM, Finding
from jobs.doctor.machine import Where, check_machine
from pipeline.cluster.address import address_of
from pipeline.engines.base import ENGINES


def check(
    destination: str | None, endpoint_url: str | None, engine: str, address: str | None
) -> list[Finding]:
    """Return what is found about this machine, and about a destination if one is given; UsageError for bad options."""
    if engine not in ENGINES:
        raise UsageError(f"--engine {engine}: must be one of {', '.join(ENGINES)}")
    where = Where(engine, address)
    findings = [*check_machine(where)]
    if destination is not None:
        try:
            findings += check_destination(destination, endpoint_url, shared=address_of(where) is not None)
        except ImgtxError as error:
            # A URI that can never work.
            findings.append(Finding("destination", PROBLEM, str(error)))
    return findings
