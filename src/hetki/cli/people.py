"""Commands about people: `customer`, `segments`, `explain`, `merge`, `unmerge`."""

from __future__ import annotations

from typing import Annotated

import typer

from hetki.cli.opening import HERE, Folder, opened, progress_bar
from hetki.dialogues.explaining import decision_words
from hetki.dialogues.tracing import why_words
from hetki.dialogues.wording import counted, spoken_at
from hetki.engine.advance import advance
from hetki.engine.commands import Merge, Unmerge
from hetki.engine.engine import Engine
from hetki.engine.known import known_at
from hetki.engine.segments import count_segments
from hetki.engine.telling import titles, used_events, why_moment
from hetki.errors import Conflict, Fault, Invalid, NotFound
from hetki.events.event import LeafId
from hetki.events.wire import instant_of
from hetki.identity.identifier import Namespace, NodeId, identifier
from hetki.moments.fold import Folded, decode, dropped, in_segments
from hetki.store.views import Views

app = typer.Typer()
Who = Annotated[str, typer.Argument(help="A user id, e-mail, phone, anonymous id, or a customer's hex id.")]
By = Annotated[str, typer.Option("--by", help="Who says so; it is kept with the evidence.")]
NAMESPACES: tuple[Namespace, ...] = ("user_id", "email", "phone", "anonymous_id")


@app.command()
def customer(
    who: Who,
    known: Annotated[
        str, typer.Option("--known-at", help="Who it was held to be at this time (ISO 8601).")
    ] = "",
    project: Folder = HERE,
) -> None:
    """One customer: identifiers, the links between them, and what was decided."""
    engine = opened(project)
    found = find(engine, who)
    if known:
        print("\n".join(_known(engine, found, instant_of(known, "--known-at"))))
        return
    views = Views(engine.disk)
    named = views.identifiers_of([found])
    values = {each.node: f"{each.namespace} {each.value}" for each in named}
    print(f"customer {found.hex()}")
    for each in named:
        print(f"  {each.namespace}  {each.value}")
    zone = engine.project.settings.time_zone
    for link in views.evidence(each.node for each in named):
        ends = " = ".join(values.get(node, node.hex()) for node in (link.node_a, link.node_b))
        standing = "revoked" if link.revoked_at else f"refused: {link.refusal}" if link.refusal else "stands"
        print(
            f"  link {link.link_id.hex()}  {link.kind}  {ends}  {spoken_at(link.linked_at, zone)}  {standing}"
        )
    row = engine.state.load_customers([found]).get(found)
    folded = decode(row.state) if row else Folded()
    for segment in in_segments(engine.program, folded, engine.clock.now()):
        print(f"  segment  {segment.name}  {segment.title}")
    for name, (n_tries, n_values) in dropped(folded).items():
        print(
            f"  given up  {name}  {counted(n_tries, 'try')}, {counted(n_values, 'value')}: more than is kept"
        )
    for handled in views.of_customer(found, [LeafId(bytes(each.node)) for each in named], 50):
        decision = handled.decision
        outcome = f"{decision.chosen}  {decision.decision_id}" if decision else handled.status
        print(f"  {spoken_at(handled.occurred_at, zone)}  {handled.moment}  {outcome}")


def _known(engine: Engine, customer: LeafId, at: int) -> list[str]:
    """The identifiers of a customer as they were known."""
    known = known_at(engine, NodeId(customer), at)
    zone = engine.project.settings.time_zone
    if known is None:
        raise NotFound(
            Fault("customer", f"nobody known by that name at {spoken_at(at, zone)}", "a later time")
        )
    named = Views(engine.disk).nodes(known.members)
    told = sorted(f"  {each.namespace}  {each.value}" for each in named.values() if each.namespace != "event")
    return [f"customer {known.customer.hex()}, as known at {spoken_at(at, zone)}", *told]


@app.command()
def segments(
    name: Annotated[str, typer.Argument(help="One segment: who is in it; none: all, counted.")] = "",
    n_shown: Annotated[int, typer.Option("--for", min=0, help="How many customers to show.")] = 20,
    project: Folder = HERE,
) -> None:
    """How many customers are in each segment now, or who is in one."""
    engine = opened(project)
    with progress_bar() as bar:
        task = bar.add_task("customers", total=engine.state.counts()["customers"])
        found = count_segments(
            engine.state,
            engine.program,
            engine.clock.now(),
            name,
            n_shown if name else 0,
            lambda n_customers: bar.update(task, completed=n_customers),
        )
    for each in found:
        print(f"{each.segment}: {each.n_customers:,} of {counted(each.n_of, 'customer')}  ({each.title})")
        names = Views(engine.disk).names_of(each.customers)
        for customer in each.customers:
            print(f"  {customer.hex()}  {names.get(customer, '')}".rstrip())
        if name and each.n_customers > len(each.customers):
            print(f"  and {each.n_customers - len(each.customers):,} more")
    if not found:
        print("no segment is declared")


@app.command()
def explain(
    decision_id: Annotated[str, typer.Argument(help="The id of a decision or of its occurrence.")] = "",
    moment: Annotated[str, typer.Option(help="Why, or why not, this moment.")] = "",
    customer: Annotated[str, typer.Option(help="For whom: as the argument of hetki customer.")] = "",
    project: Folder = HERE,
) -> None:
    """A decision in plain words; or, with --moment and --customer, why a moment was caught or was not."""
    if bool(decision_id) == bool(moment or customer) or bool(moment) != bool(customer):
        must = "the id of a decision, or --moment and --customer"
        raise Invalid(Fault("explain", "neither, or parts of both", must))
    engine = opened(project)
    if moment:
        told = why_moment(engine, find(engine, customer), moment)
        names = titles(engine.project)
        compiled = engine.project.moments[moment]
        print("\n".join(why_words(told, compiled, names.actions, names.time_zone)))
        return
    decision = engine.ledger.decision(decision_id)
    if decision is None:
        raise NotFound(Fault("decision", repr(decision_id), "the id of a decision", "see hetki customer"))
    used = used_events(Views(engine.disk), engine.journal, decision)
    print("\n".join(decision_words(decision, titles(engine.project), used)))


@app.command()
def merge(
    who: Who,
    other: Who,
    by: By,
    despite_unique: Annotated[
        bool,
        typer.Option("--despite-unique", help="Although each has a user id: a person with two accounts."),
    ] = False,
    project: Folder = HERE,
) -> None:
    """Say that two customers are one. `hetki unmerge` takes it back."""
    engine = opened(project)
    a, b = find(engine, who), find(engine, other)
    if a == b:
        raise Conflict(Fault("merge", "one customer", "two customers", f"both are {a.hex()} already"))
    command = Merge(a.hex(), b.hex(), by, engine.clock.now(), despite_unique)
    engine.acceptor.command(command)
    advance(engine)
    refusal = engine.state.refusal_of("merge", a, b, command.said_at)
    if refusal:
        hint = "--despite-unique if they have two accounts" if refusal == "two_unique_ids" else ""
        raise Conflict(Fault("merge", refusal, "one that no constraint forbids", hint))
    print(f"{find(engine, who).hex()} is now the customer of both")


@app.command()
def unmerge(
    link_id: Annotated[str, typer.Argument(help="The link to take back; hetki customer shows them.")],
    by: By,
    project: Folder = HERE,
) -> None:
    """Take a link back: what it joined becomes two customers again, as if it had never been."""
    engine = opened(project)
    try:
        link = engine.state.link(bytes.fromhex(link_id))
    except ValueError:
        link = None
    if link is None:
        raise NotFound(Fault("link", repr(link_id), "the id of a link", "see hetki customer"))
    engine.acceptor.command(Unmerge(link_id, by, engine.clock.now()))
    advance(engine)
    customers = sorted(
        {each.hex() for each in engine.state.customers_of([link.node_a, link.node_b]).values()}
    )
    print("now: " + " and ".join(customers))


def find(engine: Engine, who: str) -> LeafId:
    """The customer that a name belongs to. Raises `NotFound`."""
    nodes = [found.node for space in NAMESPACES if (found := identifier(engine.keys.node, space, who))]
    try:
        nodes.append(NodeId(bytes.fromhex(who)))
    except ValueError:
        pass
    known = engine.state.customers_of(nodes)
    for node in nodes:
        if node in known:
            return known[node]
    raise NotFound(Fault("customer", repr(who), "a name that some event has told"))
