"""Prompts of the command line: a table in their place, and what is missing."""

import json
from pathlib import Path

import pytest

from imgtx.errors import UsageError
from jobs.run.inline import places, source_given
from tests.support.commands import imgtx


def test_prompts_of_the_command_line_are_a_table_as_long_as_the_block():
    given = {"source": "out", "destination": None, "inline": ("a red\ncircle", "●"), "steps": 3}
    with source_given("generate", given) as (source, destination, options):
        lines = Path(source).read_text().splitlines()
        assert [json.loads(line) for line in lines] == [{"prompt": "a red\ncircle"}, {"prompt": "●"}]
        assert (destination, options) == ("out", {"steps": 3})
    assert not Path(source).exists()


def test_a_table_stays_where_it_is():
    given = {"source": "t.csv", "destination": "out", "inline": ()}
    with source_given("generate", given) as found:
        assert found == ("t.csv", "out", {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"source": "t.csv", "destination": "out", "inline": ("a",)},
            "t.csv and -p: give either TABLE or -p",
        ),
        (
            {"source": "out", "destination": None, "inline": ()},
            "needs TABLE and DESTINATION, or DESTINATION and -p",
        ),
        ({"source": None, "destination": None, "inline": ("a",)}, "needs TABLE and DESTINATION"),
    ],
)
def test_too_few_or_too_many_places_are_one_line(given, message):
    with pytest.raises(UsageError, match=message):
        places("generate", given)


def test_the_command_says_what_is_missing():
    done = imgtx("generate", "out")
    assert done.exit_code == 2
    assert "imgtx generate needs TABLE and DESTINATION, or DESTINATION and -p TEXT" in done.stderr
