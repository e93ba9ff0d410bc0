"""From a tape that breaks a promise to a short one that breaks the same promise.

Delta debugging over the tape, then over what its entries hold. Never judges: whether a candidate
still fails is asked of the caller.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from .operations import Scenario, Submit
from .scripts import Spec
from .world import Outcome

Fails = Callable[[Scenario], bool]


def kind_of(outcome: Outcome) -> str:
    """Return which promise was broken, without ids and numbers, so that runs can be compared."""
    if not outcome.violations:
        return ""
    text = outcome.violations[0].partition(": ")[2]
    if " crashed:" in text:
        lines = [line for line in text.strip().splitlines() if line.strip()]
        return re.sub(r"[0-9a-f]{8,}|\d+|\W", " ", f"{lines[0]} {lines[-1]}")
    text = text.split("\n")[0]
    if text.startswith("not at rest: "):
        return re.sub(r" = .*|(?<=: )\w+\.", "", text)  # the first that is left, whoever has it
    text = text.split(":")[0]
    return re.sub(r"[0-9a-f]{8,}[.0-9a-f]*|\d+", "#", text)


def shrink(scenario: Scenario, fails: Fails) -> Scenario:
    """Return a scenario with as little on its tape as still fails."""
    scenario = _with(scenario, tape=_ddmin(scenario, fails))
    for simpler in (_fewer_copies, _simpler_specs, _fewer_settings):
        scenario = simpler(scenario, fails)
    return _with(scenario, tape=_ddmin(scenario, fails))


def _with(scenario: Scenario, **changes: Any) -> Scenario:
    return msgspec.structs.replace(scenario, **changes)


def _ddmin(scenario: Scenario, fails: Fails) -> list[Any]:
    tape = list(scenario.tape)
    pieces = 2
    while len(tape) >= 2:
        size = max(1, len(tape) // pieces)
        for start in range(0, len(tape), size):
            rest = tape[:start] + tape[start + size :]
            if rest and fails(_with(scenario, tape=rest)):
                tape = rest
                pieces = max(pieces - 1, 2)
                break
        else:
            if size == 1:
                break
            pieces = min(2 * pieces, len(tape))
    return tape


def _fewer_copies(scenario: Scenario, fails: Fails) -> Scenario:
    for index, entry in enumerate(scenario.tape):
        if isinstance(entry, Submit) and entry.copies > 1:
            for copies in (1, entry.copies // 2):
                tape = list(scenario.tape)
                tape[index] = msgspec.structs.replace(entry, copies=max(1, copies))
                if fails(candidate := _with(scenario, tape=tape)):
                    scenario = candidate
                    break
    return scenario


def _simpler_specs(scenario: Scenario, fails: Fails) -> Scenario:
    plain = Spec()
    for index in range(len(scenario.tape)):
        for name in Spec.__struct_fields__:
            entry = scenario.tape[index]
            if not isinstance(entry, Submit) or name == "label":
                continue
            if getattr(entry.spec, name) == getattr(plain, name):
                continue
            spec = msgspec.structs.replace(entry.spec, **{name: getattr(plain, name)})
            tape = list(scenario.tape)
            tape[index] = msgspec.structs.replace(entry, spec=spec)
            if fails(candidate := _with(scenario, tape=tape)):
                scenario = candidate
    return scenario


def _fewer_settings(scenario: Scenario, fails: Fails) -> Scenario:
    for name in list(scenario.settings):
        settings = {key: value for key, value in scenario.settings.items() if key != name}
        if fails(candidate := _with(scenario, settings=settings)):
            scenario = candidate
    for name in list(scenario.nodes):
        nodes = {key: value for key, value in scenario.nodes.items() if key != name}
        if nodes and fails(candidate := _with(scenario, nodes=nodes)):
            scenario = candidate
    return scenario
