"""Commands about people: `customer`, `segments`, `explain`, `merge`, `unmerge`."""

from __future__ import annotations

from typing import Annotated

import typer

from hetki.cli.opening import HERE, Folder, opened, progress_bar
from hetki.consent.statements import whole, why
from hetki.dialogues.explaining import decision_words
from hetki.dialogues.joining import basis_words, status_words
from hetki.dialogues.tracing import why_words
from hetki.dialogues.wording import counted, spoken_at, standing_words
from hetki.engine.advance import advance
from hetki.engine.commands import Merge, Unmerge
from hetki.engine.engine import Engine
from hetki.engine.known import known_at
from hetki.engine.reviewing import merge_of
from hetki.engine.segments import count_segments
from hetki.engine.telling import (
    find_account,
    known_traits,
    meant,
    titles,
    used_events,
    why_moment,
    why_one,
)
from hetki.errors import Conflict, Fault, Invalid, NotFound, shown
from hetki.events.event import LeafId
from hetki.events.wire import instant_of
from hetki.identity.identifier import LEAVES, NodeId, as_leaf
from hetki.identity.joining import strongest_first
from hetki.identity.survival import Word
from hetki.moments.fold import Folded, decode
from hetki.moments.present import dropped, in_segments
from hetki.store.accounts import belongs_to
from hetki.store.households import household_of
from hetki.store.staff import checked_name
from hetki.store.views import Views

app = typer.Typer()
Who = Annotated[str, typer.Argument(help="A user id, e-mail, phone, anonymous id, or a customer's hex id.")]
By = Annotated[
    str,
    typer.Option(
        "--by",
        help="Who says so; it is kept with the evidence.",
        callback=lambda name: checked_name(name, "--by"),
    ),
]
TWO_ACCOUNTS = "--despite-unique if they have two accounts"


@app.command()
def customer(
    who: Who,
    known: Annotated[
        str, typer.Option("--known-at", help="Who it was held to be at this time (ISO 8601).")
    ] = "",
    project: Folder = HERE,
) -> None:
    """One customer: identifiers, the links between them, traits with who told them, what was decided."""
    engine = opened(project)
    found = find(engine, who)
    if known:
        print("\n".join(_known(engine, found, instant_of(known, "--known-at"))))
        return
    views = Views(engine.disk)
    named = views.identities.of([found])
    print(f"customer {found.hex()}")
    for each in named:
        print(f"  {each.namespace}  {each.value}")
    zone = engine.project.settings.time_zone
    links = strongest_first(views.identities.links(each.node for each in named))
    values = {each.node: f"{each.namespace} {each.value}" for each in named}
    for link in links:
        told = [f"  link {link.link.link_id.hex()}", link.link.kind]
        told += [
            " = ".join(values.get(node, node.hex()) for node in link.ends),
            spoken_at(link.link.linked_at, zone),
        ]
        told += [basis_words(link), "revoked" if link.look == "revoked" else status_words(link)]
        print("  ".join(part for part in told if part))
    row = engine.state.load_customers([found]).get(found)
    folded = decode(row.state) if row else Folded()
    _print_layers(engine, views, found)
    print("\n".join(standing_lines(engine, found)))
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


def standing_lines(engine: Engine, customer: LeafId) -> list[str]:
    """What may be done with a customer's data and why, and what is known, with who told it."""
    row = engine.state.load_customers([customer]).get(customer)
    folded = decode(row.state) if row else Folded()
    zone = engine.project.settings.time_zone
    said, now = whole(folded.statements), engine.clock.now()
    lines = []
    for name, purpose in sorted(engine.project.purposes.items()):
        because = why(name, purpose, said, now)
        mark = "open" if because in ("granted", "basis") else "closed"
        lines.append(f"  purpose  {name}  {mark}: {standing_words(because, purpose.basis)}")
    for trait in known_traits(engine.program, folded):
        lines.append(f"  trait  {trait.name}  {_word(trait.word, zone)}  ({trait.rule})")
        lines += [f"    other  {_word(other, zone)}" for other in trait.others]
        if trait.n_dropped:
            lines.append(f"    and {counted(trait.n_dropped, 'value')} more than is kept")
    return lines


def _print_layers(engine: Engine, views: Views, customer: LeafId) -> None:
    """The accounts of a customer, and who shares the household."""
    zone = engine.project.settings.time_zone
    nodes = engine.state.members([customer]).get(customer, {})
    for group, (_, joined_at) in belongs_to(engine.db, map(as_leaf, nodes)).items():
        since = "only named" if joined_at is None else f"member since {spoken_at(joined_at, zone)}"
        print(f"  account  {group}  {since}")
    household = engine.project.household
    shared = household_of(engine.db, customer, household.members_max) if household else None
    if household is not None and shared is not None:
        others = [each for each in shared.customers if each != customer]
        names = views.identities.names(others)
        listed = ", ".join(names.get(each, each.hex()) for each in others)
        if not shared.is_one:
            listed = f"none: more than {household.members_max} customers would share it"
        print(f"  household  {shared.household.hex()}  {listed}")


def _word(word: Word | None, zone: str) -> str:
    if word is None:
        return "taken back"
    told = f"{shown(word.value)}  told by {word.source}, {spoken_at(word.told_at, zone)}"
    often = f", {counted(word.n_told, 'time')}" if word.n_told > 1 else ""
    verified = ", verified" if word.verified else ""
    return f"{told}{often}{verified}, event {word.event_id.hex()}"


def _known(engine: Engine, customer: LeafId, at: int) -> list[str]:
    """The identifiers of a customer as they were known."""
    known = known_at(engine, NodeId(customer), at)
    zone = engine.project.settings.time_zone
    if known is None:
        raise NotFound(
            Fault("customer", f"nobody known by that name at {spoken_at(at, zone)}", "a later time")
        )
    named = Views(engine.disk).identities.nodes(known.members)
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
        names = Views(engine.disk).identities.names(each.customers)
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
    other: Annotated[str, typer.Option(help="Why this is the same customer, or is not.")] = "",
    account: Annotated[str, typer.Option(help="For which account: as the argument of hetki account.")] = "",
    project: Folder = HERE,
) -> None:
    """A decision in plain words; with --customer or --account and --moment why a moment was caught or was
    not; with --customer and --other why two are one customer or are not."""
    given = {"decision": decision_id, "customer": customer, "moment": moment, "other": other}
    asked = {name for name, text in {**given, "account": account}.items() if text}
    if asked not in ({"decision"}, {"customer", "moment"}, {"customer", "other"}, {"account", "moment"}):
        must = "the id of a decision, --customer with --moment or --other, or --account with --moment"
        raise Invalid(Fault("explain", "none of them, or parts of several", must))
    engine = opened(project)
    if other:
        print("\n".join(why_one(engine, found_as(engine, customer), found_as(engine, other))))
        return
    if moment:
        told = why_moment(
            engine, find_account(engine, account) if account else find(engine, customer), moment
        )
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
    policy, now = engine.project.identity, engine.clock.now()
    ends = NodeId(a), NodeId(b)
    command = merge_of(engine.state, policy, ends, by, now, despite_unique, TWO_ACCOUNTS)
    say_merge(engine, command)
    print(f"{find(engine, who).hex()} is now the customer of both")


def say_merge(engine: Engine, command: Merge) -> None:
    """Have a merge folded. Raises `Conflict` with the reason if a constraint forbids it."""
    engine.acceptor.command(command)
    advance(engine)
    a, b = bytes.fromhex(command.node_a), bytes.fromhex(command.node_b)
    refusal = engine.state.refusal_of("merge", a, b, command.said_at)
    if refusal:
        raise Conflict(Fault("merge", refusal, "one that no constraint forbids"))


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
    """The customer that a name belongs to. Raises `NotFound`, or `Conflict` where it is more than one's."""
    node = found_as(engine, who)
    return engine.state.customers_of([node])[node]


def found_as(engine: Engine, who: str) -> NodeId:
    """The identifier that a name is. Raises `NotFound`, or `Conflict` where more than one is known by it."""
    nodes = meant(engine, who)
    known = engine.state.customers_of(nodes)
    found = [node for node in nodes if node in known]
    if not found:
        raise NotFound(Fault("customer", repr(who), "a name that some event has told"))
    customers = list(dict.fromkeys(known[node] for node in found))
    members = engine.state.members(customers)
    people = [each for each in customers if any(space in LEAVES for space in members[each].values())]
    if len(people) > 1:
        hint = "give one's own id: " + " or ".join(each.hex() for each in people)
        raise Conflict(Fault("customer", f"{who!r}, by which more than one is known", "one customer", hint))
    return found[0]
