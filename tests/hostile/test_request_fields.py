"""Every integer field of every request that an actor may send, with values that no honest actor sends.

The attacker has the actors' token and comes from another address than the honest actors; Publish and Admit are called
without a token. After every number: the next version comes in time, nobody died. At the end: the books are plausible.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.message import Message

from headrace.common.wire import paramserver_pb2 as pp

from . import books
from .cases import Field, changed, integer_fields, values
from .client import Client, Detour, life
from .conftest import Target
from .roles import Run

pytestmark = pytest.mark.timeout(300)

SERVICE = pp.DESCRIPTOR.services_by_name["ParamServer"]
PRIVILEGED = ("Publish", "Admit")
ACTORS = [m.name for m in SERVICE.methods if m.name not in PRIVILEGED]
REQUESTS: dict[str, type[Message]] = {m.name: getattr(pp, m.input_type.name) for m in SERVICE.methods}
FIELDS = [(name, field) for name in (*ACTORS, *PRIVILEGED) for field in integer_fields(REQUESTS[name].DESCRIPTOR)]


def well_formed(name: str, run: Run, actor_id: int, incarnation: int) -> Message:
    """A request as an honest caller would send it now; fields it has not heard of stay as they are by default."""
    known = {
        "run_id": run.id,
        "actor_id": actor_id,
        "incarnation": incarnation,
        "workers": 1,
        "have_epoch": run.epochs,
        "have_version": run.version,
        "timeout_ms": 200,
        "writer": incarnation,
        "learner_epoch": run.epochs,
    }
    if name == "Publish":
        piece = pp.PublishPiece()
        piece.header.run_id, piece.header.writer = run.id, incarnation
        piece.header.content.learner_epoch, piece.header.content.version = run.epochs, run.version + 1
        return piece
    names = {f.name for f in REQUESTS[name].DESCRIPTOR.fields}
    return REQUESTS[name](**{k: v for k, v in known.items() if k in names})


@pytest.fixture(scope="module")
def detours() -> Iterator[dict[str, Detour]]:
    """By the address they lead to."""
    made: dict[str, Detour] = {}
    yield made
    for one in made.values():
        one.close()


@pytest.fixture
def run(target: Target) -> Run:
    """The run under attack, undisturbed again."""
    return target.undisturbed()


def attacker(run: Run, detours: dict[str, Detour], token: str | None) -> Client:
    """Somebody on another machine."""
    if run.address not in detours:
        detours[run.address] = Detour(run.address)
    return Client(detours[run.address].address, run.id, token)


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=[f"{n}.{f.name}" for n, f in FIELDS])
def test_no_number_in_a_request_stops_the_run(run: Run, detours: dict[str, Detour], name: str, field: Field) -> None:
    client = attacker(run, detours, None if name in PRIVILEGED else run.token)
    outcomes: dict[int, tuple[str, str]] = {}
    for value in values(field.field):
        incarnation = life()
        actor_id = 70 if name in PRIVILEGED else (attacker_id(client, incarnation))
        message = changed(well_formed(name, run, actor_id, incarnation), field.path, value)
        outcomes[value] = client.try_call(name, iter([message]) if name == "Publish" else message, 3.0)
        if name not in PRIVILEGED:
            client.leave(getattr(message, "actor_id", actor_id), getattr(message, "incarnation", incarnation))
            client.leave(actor_id, incarnation)
        run.goes_on(f"{name}.{field.name} was {value}")
    client.close()
    run.goes_on(f"{name}.{field.name} was {outcomes}")
    crashed = {v: o for v, o in outcomes.items() if o[0] in ("UNKNOWN", "INTERNAL")}
    assert not crashed, f"an exception of the server's, not a refusal: {crashed}"
    if name in PRIVILEGED:
        assert {o[0] for o in outcomes.values()} <= {"UNAUTHENTICATED", "PERMISSION_DENIED"}, outcomes


def attacker_id(client: Client, incarnation: int) -> int:
    """A number of its own, as an actor that joins is given."""
    return (client.join(incarnation) or [60])[0]


def test_the_server_answers_what_these_requests_are_when_nothing_is_wrong(run: Run, detours: dict[str, Detour]) -> None:
    """Otherwise the cases above might be refused for another reason than their one hostile number."""
    client = attacker(run, detours, run.token)
    for name in ACTORS:
        incarnation = life()
        actor_id = attacker_id(client, incarnation)
        outcome = client.try_call(name, well_formed(name, run, actor_id, incarnation))
        client.leave(actor_id, incarnation)
        assert outcome[0] == "OK", f"{name}: {outcome}"
    client.close()


def test_the_books_are_plausible_at_the_end(run: Run) -> None:
    run.finish()
    books.check(run)
    assert not run.row()["rejected"], "no record was hostile here"
