"""Every integer field of a record's header, with values that no honest actor sends, over local:// and kafka://.

Each case has a real lease of its own and is right in everything else. After every number: the next version comes in
time, nobody died, and what cannot be right was refused and counted. At the end: the books are plausible.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.common.wire import trajectory_pb2 as tp

from . import books
from .cases import Field, changed, integer_fields, values
from .conftest import Target
from .forge import Forger

pytestmark = pytest.mark.timeout(300)

FIELDS = list(integer_fields(tp.TrajectoryHeader.DESCRIPTOR))
# A count that nothing depends on: duplicates are recognised by their lease.
HARMLESS = {"seq"}


@pytest.fixture(scope="module", params=["local", "kafka"])
def victim(request: pytest.FixtureRequest) -> Iterator[Target]:
    return request.getfixturevalue("target" if request.param == "local" else "kafka_target")


@pytest.fixture
def forger(victim: Target) -> Forger:
    """Against the run as it is now, undisturbed again."""
    return victim.forger()


def test_a_record_that_is_right_is_taken(forger: Forger) -> None:
    """Otherwise the cases below might be refused for another reason than their one hostile number."""
    before, header = forger.run.rejected, forger.header()
    for _ in range(header.t * header.b):
        header.episode_return.append(12345.0)
        header.episode_length.append(1)
    forger.put(header)
    forger.run.goes_on("a record that is right", versions=5)
    assert forger.run.rejected == before, forger.run.row()
    means = [row["return_mean"] for row in forger.run.rows() if row["return_mean"] is not None]
    assert max(means) > 500.0, "the record was not heard of"


@pytest.mark.parametrize("field", FIELDS, ids=[f.name for f in FIELDS])
def test_no_number_in_a_record_stops_the_run(forger: Forger, field: Field) -> None:
    before, impossible, sent = forger.run.rejected, 0, []
    for value in values(field.field):
        header = forger.header()
        if field.path[0].startswith("episode"):
            header.episode_return.append(10.0)
            header.episode_length.append(10)
        hostile = changed(header, field.path, value)
        assert isinstance(hostile, tp.TrajectoryHeader)
        impossible += hostile != header and field.name not in HARMLESS
        forger.put_and_leave(hostile)
        sent.append(value)
        forger.run.goes_on(f"{field.name} was {value}")
    what = f"{field.name} was {sent}"
    forger.run.goes_on(what)
    forger.refused(before, impossible, what)


def test_the_books_are_plausible_at_the_end(forger: Forger) -> None:
    run = forger.run
    run.finish()
    books.check(run)
    assert run.rejected > 0
    assert run.info()["counters"]["rejected"] == run.row()["rejected"]
