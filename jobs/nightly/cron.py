"""Cron expressions as Kubernetes reads them: five fields, checked, and the same ticks in systemd's words.

The rules are those of the parser that CronJob and KubeRay use (robfig/cron, ParseStandard), but for its `@daily` and
`TZ=` forms: days of the week go from 0 (Sunday) to 6, and where both days are restricted, either of them is enough.
"""

from dataclasses import dataclass

from imgtx.errors import UsageError

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTH_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

# Each field's name, least and greatest value, and words that stand for values.
FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(MONTHS, 1)}),
    ("day of the week", 0, 6, {name: number for number, name in enumerate(DAYS)}),
)


@dataclass(frozen=True)
class Cron:
    """The values of each field; None where it is not restricted (`*`)."""

    minutes: tuple[int, ...] | None
    hours: tuple[int, ...] | None
    days: tuple[int, ...] | None
    months: tuple[int, ...] | None
    weekdays: tuple[int, ...] | None


def parse_cron(text: str, where: str) -> Cron:
    """The expression, or UsageError that opens with `where` and says which field is wrong and what is legal."""
    parts = text.split()
    if len(parts) != len(FIELDS):
        raise UsageError(
            f"{where} = {text!r} has {len(parts)} fields; legal are five: minute, hour, day of the month, month, day "
            'of the week, as in "30 1 * * *"'
        )
    cron = Cron(*(_field(part, *rule, where) for part, rule in zip(parts, FIELDS, strict=True)))
    if cron.days and cron.weekdays is None:
        longest = max(MONTH_LENGTHS[month - 1] for month in cron.months or range(1, 13))
        if min(cron.days) > longest:
            raise UsageError(
                f"{where} = {text!r} never comes: these months have {longest} days at most; give days they have"
            )
    return cron


def _field(
    part: str, name: str, least: int, most: int, words: dict[str, int], where: str
) -> tuple[int, ...] | None:
    if part in ("*", "?"):
        return None
    values: set[int] = set()
    for item in part.split(","):
        span, slash, step = item.partition("/")
        low, dash, high = span.partition("-")
        first = least if span == "*" else _value(low, words)
        # "5/10" means from 5 to the end in steps of 10
        last = most if span == "*" or (slash and not dash) else _value(high if dash else low, words)
        by = _value(step, {}) if slash else 1
        if first is None or last is None or not by or not least <= first <= last <= most:
            example = f" or {next(iter(words))}" if words else ""
            raise UsageError(
                f"{where}: {item!r} is no {name}; legal are {least} to {most}{example}, ranges such as "
                f"{least}-{most}, steps such as */2, and lists of these"
            )
        values.update(range(first, last + 1, by))
    return tuple(sorted(values))


def _value(text: str, words: dict[str, int]) -> int | None:
    """A number, or the value of a word; None for what is neither."""
    return int(text) if text.isascii() and text.isdigit() else words.get(text.lower())


def on_calendar(cron: Cron, time_zone: str, where: str) -> str:
    """The same ticks as systemd's OnCalendar= has them, in that time zone.

    Raises UsageError where both days are restricted: there cron means either, systemd both.
    """
    if cron.days and cron.weekdays:
        raise UsageError(
            f"{where} restricts days of the month and of the week, which systemd cannot say: leave one of them *"
        )
    weekdays = ",".join(DAYS[day].capitalize() for day in cron.weekdays) + " " if cron.weekdays else ""
    minutes, hours, days, months = (
        "*" if values is None else ",".join(f"{value:02}" for value in values)
        for values in (cron.minutes, cron.hours, cron.days, cron.months)
    )
    return f"{weekdays}*-{months}-{days} {hours}:{minutes}:00 {time_zone}"
