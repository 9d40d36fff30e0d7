"""Sentence: a moment said back in plain English, so that a person can see that it means what they meant."""

from __future__ import annotations

from itertools import groupby
from typing import Mapping

from hetki.declarations.durations import spoken
from hetki.moments.moment import Moment
from hetki.patterns.choices import Choice
from hetki.patterns.condition import Condition
from hetki.patterns.segments import Segment
from hetki.patterns.sequence import Absence, EventStep, Pattern
from hetki.patterns.texts import TIMES_MAX
from hetki.patterns.tree import InSegment, Known, Staffing, walk
from hetki.patterns.words import field_words, listed, words


def sentence(moment: Moment, action_titles: Mapping[str, str]) -> str:
    """One sentence: who, each step, how long, what is answered until when, how often, and the holdout."""
    pattern = moment.pattern
    called = step_names(pattern)
    titles = [f"'{action_titles.get(answer, answer)}'" for answer in moment.answers]
    return (
        f"For {_who(moment)}: after {_steps(pattern, called)}, "
        f"answer within {spoken(moment.expires_s)} with {listed(titles, 'or')}, or not at all, "
        f"{_repeat(pattern, called)}; {_holdout(moment)}."
    )


def step_names(pattern: Pattern) -> dict[str, str]:
    """How each event step is called in a sentence: by its event, or by its own name if that is not enough."""
    events = [" or ".join(choice.event for choice in step.choices) for step in pattern.events]
    return {
        step.name: event if events.count(event) == 1 and len(step.choices) == 1 else f"'{step.name}'"
        for step, event in zip(pattern.events, events, strict=True)
    }


def _who(moment: Moment) -> str:
    who: Condition | None = moment.pattern.who
    if moment.is_about_account:
        return f"an account when {words(who.tree, {})}" if who else "any account"
    if who is None:
        return "any customer"
    if isinstance(who.tree, InSegment):
        return f"a customer in '{who.tree.title}'"
    said = words(who.tree, {})
    if all(not isinstance(node, Known | InSegment | Staffing) for node in walk(who.tree)):
        return "a customer whose " + said.replace("the customer's ", "")
    return f"a customer when {said}"


def segment_sentence(segment: Segment) -> str:
    """A segment in one sentence."""
    return f"A customer is in '{segment.title}' when {words(segment.who.tree, {})}."


def _steps(pattern: Pattern, called: Mapping[str, str]) -> str:
    """All steps, stage by stage; what stands between two of them is said with the later one."""
    said: list[tuple[int, str]] = []
    between: list[Absence] = []
    for number, step in enumerate(pattern.steps):
        stage = step.stage if isinstance(step, EventStep) else step.follows
        if isinstance(step, EventStep) or step.part:
            if said and said[-1][0] == stage:
                continue
            text = _stage(pattern, stage, called)
            if between:
                absent = listed([_choices(each.choices, called) for each in between], "or")
                text += f", without {absent} in between"
            between = []
            said.append((stage, text))
        elif step.before_s is not None:
            first = called[pattern.events[0].name]
            said.append((-1, f"{_absent(step, called)} in the {spoken(step.before_s)} before {first}"))
        elif step.is_timed:
            follows_anchor = pattern.steps[number - 1] is pattern.events[step.anchor]
            said.append((-1, f"{_absent(step, called)} {_time(step, pattern, called, follows_anchor)}"))
        else:
            between.append(step)
    return ", then ".join(_grouped(pattern, said))


def _grouped(pattern: Pattern, said: list[tuple[int, str]]) -> list[str]:
    """The texts of stages, those of a group that starts again put together."""
    texts: list[str] = []
    first = -1
    for stage, text in said:
        if any(each.back == stage for each in pattern.stages):
            first = len(texts)
        texts.append(text)
        if stage >= 0 and pattern.stages[stage].back is not None:
            texts[first:] = [f"again and again ({', then '.join(texts[first:])})"]
    return texts


def _stage(pattern: Pattern, index: int, called: Mapping[str, str]) -> str:
    """What is passed together, or the parts of which one is enough."""
    stage = pattern.stages[index]
    parts = []
    for step in pattern.steps:
        if isinstance(step, EventStep) and step.stage == index:
            parts.append(_event(step, pattern, called))
        elif isinstance(step, Absence) and step.part and step.follows == index:
            parts.append(f"{_absent(step, called)} {_during(step)}")
    if stage.is_any:
        return f"{listed(parts, 'or')}, whichever is first"
    return f"in any order {' and '.join(parts)}" if len(parts) > 1 else parts[0]


def _event(step: EventStep, pattern: Pattern, called: Mapping[str, str]) -> str:
    """An event step with how often and within which time."""
    text = _choices(step.choices, called)
    if called[step.name] == f"'{step.name}'":
        text = f"{called[step.name]} ({_choices(step.choices, called, ' where {}')})"
    if step.most > 1:
        text += f" {_times(step)}"
    if step.link != "later":
        text = f"{'as the very next' if step.link == 'next' else 'any later'} {text}"
    if pattern.stages[step.stage].is_optional:
        text = f"possibly {text}"
    if step.until:
        text += f" until {_choices(step.until, called)}"
    if step.limit is not None:
        of = called[pattern.events[step.limit.index].name]
        first = "the first of them" if step.limit.index == step.index else of
        text += f" within {spoken(step.limit.within_s)} of {first}"
    if pattern.within_s is not None and step.index == len(pattern.events) - 1:
        if step.index > 0 or step.most > 1:
            text += f" within {spoken(pattern.within_s)}" + _since(step, pattern, called)
    return text


def _since(last: EventStep, pattern: Pattern, called: Mapping[str, str]) -> str:
    """What `within` counts from, unless it is all that was said."""
    first = pattern.events[0]
    if last.stage == 0:
        return ""
    peers = [each for each in pattern.events if each.stage == 0]
    if len(peers) > 1:
        return f" of the first of {listed([called[each.name] for each in peers], 'and')}"
    return f" of {'the first ' if first.most > 1 else ''}{called[first.name]}"


def _times(step: EventStep) -> str:
    times = f"{step.least} to {step.most} times"
    if step.most == step.least:
        times = f"{step.least} times"
    elif step.most == TIMES_MAX:
        times = f"at least {step.least} times"
    return times + {"next": " in a row", "any": ", any of them", "later": ""}[step.between]


def _choices(choices: tuple[Choice, ...], called: Mapping[str, str], form: str = " ({})") -> str:
    """Events with their conditions, each condition put into `form`."""
    groups = []
    for condition, group in groupby(choices, key=lambda choice: choice.where):
        groups.append(listed([choice.event for choice in group], "or") + _where(condition, called, form))
    return " or ".join(groups)


def _where(condition: Condition | None, called: Mapping[str, str], form: str = " ({})") -> str:
    return form.format(words(condition.tree, called)) if condition else ""


def _absent(step: Absence, called: Mapping[str, str]) -> str:
    """`no A (...)`, `neither A nor B`, `none of A, B or C`."""
    names = [choice.event for choice in step.choices]
    conditions = [choice.where for choice in step.choices]
    if any(condition != conditions[0] for condition in conditions):
        return "none of " + _choices(step.choices, called)
    where = _where(conditions[0], called)
    match names:
        case [name]:
            return f"no {name}{where}"
        case [one, other]:
            return f"neither {one} nor {other}{where}"
        case _:
            return f"none of {listed(names, 'or')}{where}"


def _time(step: Absence, pattern: Pattern, called: Mapping[str, str], follows_anchor: bool) -> str:
    """Until when; the step that it counts from is said unless it is the one just before."""
    anchor = called[pattern.events[step.anchor].name]
    if step.for_s is not None:
        return _during(step) + ("" if follows_anchor else f" after {anchor}")
    time = field_words(step.by or "")
    return f"by its {time}" if follows_anchor else f"by the {time} of {anchor}"


def _during(step: Absence) -> str:
    return f"for {'any ' if step.begins_again else ''}{spoken(step.for_s or 0)}"


def _repeat(pattern: Pattern, called: Mapping[str, str]) -> str:
    how = ", one try at a time" if pattern.one_open else ", in every way they fit" if pattern.branches else ""
    return _once(pattern, called) + how


def _once(pattern: Pattern, called: Mapping[str, str]) -> str:
    match pattern.repeat.once:
        case "always":
            return "every time"
        case "field":
            return f"once per {field_words(pattern.repeat.field)} of {called[pattern.repeat.step]}"
        case "period":
            return f"at most once per {spoken(pattern.repeat.period_s)}"


def _holdout(moment: Moment) -> str:
    share = moment.holdout_share
    if share == 0:
        return "nobody is held out, so the effect cannot be measured"
    units = "accounts" if moment.is_about_account else "customers"
    return f"{share * 100:g}% of {units} are held out to measure the effect"
