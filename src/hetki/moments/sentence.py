"""Sentence: a moment said back in plain English, so that a person can see that it means what they meant."""

from __future__ import annotations

from itertools import groupby
from typing import Mapping

from hetki.declarations.durations import spoken
from hetki.moments.moment import Moment
from hetki.patterns.choices import Choice
from hetki.patterns.condition import Condition
from hetki.patterns.sequence import Absence, EventStep, Pattern
from hetki.patterns.steps import TIMES_MAX
from hetki.patterns.words import field_words, listed, words


def sentence(moment: Moment, action_titles: Mapping[str, str]) -> str:
    """One sentence: who, each step, how long, what is answered until when, how often, and the holdout."""
    pattern = moment.pattern
    called = step_names(pattern)
    titles = [f"'{action_titles.get(answer, answer)}'" for answer in moment.answers]
    return (
        f"For {_who(pattern.who)}: after {_steps(pattern, called)}, "
        f"answer within {spoken(moment.expires_s)} with {listed(titles, 'or')}, or not at all, "
        f"{_repeat(pattern, called)}; {_holdout(moment.holdout_share)}."
    )


def step_names(pattern: Pattern) -> dict[str, str]:
    """How each event step is called in a sentence: by its event, or by its own name if that is not enough."""
    events = [" or ".join(choice.event for choice in step.choices) for step in pattern.events]
    return {
        step.name: event if events.count(event) == 1 and len(step.choices) == 1 else f"'{step.name}'"
        for step, event in zip(pattern.events, events, strict=True)
    }


def _who(who: Condition | None) -> str:
    if who is None:
        return "any customer"
    return "a customer whose " + words(who.tree, {}).replace("the customer's ", "")


def _steps(pattern: Pattern, called: Mapping[str, str]) -> str:
    said: list[str] = []
    between: list[Absence] = []
    for number, step in enumerate(pattern.steps):
        if isinstance(step, EventStep):
            text = _event(step, pattern, called)
            if between:
                absent = listed([_choices(each.choices, called) for each in between], "or")
                text += f", without {absent} in between"
            between = []
            if step.index > step.peers[0]:
                text = f"{said.pop()} and {text}"
            elif len(step.peers) > 1:
                text = f"in any order {text}"
            said.append(text)
        elif step.before_s is not None:
            first = called[pattern.events[0].name]
            said.append(f"{_absent(step, called)} in the {spoken(step.before_s)} before {first}")
        elif step.is_timed:
            follows_anchor = pattern.steps[number - 1] is pattern.events[step.anchor]
            said.append(f"{_absent(step, called)} {_time(step, pattern, called, follows_anchor)}")
        else:
            between.append(step)
    return ", then ".join(said)


def _event(step: EventStep, pattern: Pattern, called: Mapping[str, str]) -> str:
    """An event step with how often and within which time."""
    text = _choices(step.choices, called)
    if called[step.name] == f"'{step.name}'":
        text = f"{called[step.name]} ({_choices(step.choices, called, ' where {}')})"
    if step.most > 1:
        text += f" {_times(step)}"
    if step.is_next:
        text = f"as the very next {text}"
    if step.limit is not None:
        text += f" within {spoken(step.limit.within_s)} of {called[pattern.events[step.limit.index].name]}"
    if pattern.within_s is not None and step.index == len(pattern.events) - 1:
        if step.index > 0 or step.most > 1:
            text += f" within {spoken(pattern.within_s)}" + _since(step, pattern, called)
    return text


def _since(last: EventStep, pattern: Pattern, called: Mapping[str, str]) -> str:
    """What `within` counts from, unless it is all that was said."""
    first = pattern.events[0]
    if last.index in first.peers:
        return ""
    if len(first.peers) > 1:
        return f" of the first of {listed([called[pattern.events[n].name] for n in first.peers], 'and')}"
    return f" of {'the first ' if first.most > 1 else ''}{called[first.name]}"


def _times(step: EventStep) -> str:
    if step.most == step.least:
        return f"{step.least} times"
    return f"at least {step.least} times" if step.most == TIMES_MAX else f"{step.least} to {step.most} times"


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
        return f"for {spoken(step.for_s)}" + ("" if follows_anchor else f" after {anchor}")
    time = field_words(step.by or "")
    return f"by its {time}" if follows_anchor else f"by the {time} of {anchor}"


def _repeat(pattern: Pattern, called: Mapping[str, str]) -> str:
    return _once(pattern, called) + (", one try at a time" if pattern.one_open else "")


def _once(pattern: Pattern, called: Mapping[str, str]) -> str:
    match pattern.repeat.once:
        case "always":
            return "every time"
        case "field":
            return f"once per {field_words(pattern.repeat.field)} of {called[pattern.repeat.step]}"
        case "period":
            return f"at most once per {spoken(pattern.repeat.period_s)}"


def _holdout(share: float) -> str:
    if share == 0:
        return "nobody is held out, so the effect cannot be measured"
    return f"{share * 100:g}% of customers are held out to measure the effect"
