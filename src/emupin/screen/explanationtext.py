"""An explanation as text: the guest, the rules, the placements with their checks, the result, the CPUs."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from emupin.base import cpuset
from emupin.base.text import printable
from emupin.engine.confinement import DEFAULT
from emupin.engine.explanation import COMPLAINT, NOT_TRIED, PASSED, TAKEN
from emupin.engine.plan import WAITING
from emupin.engine.situation import pins
from emupin.engine.startable import slows_allocation, stuck
from emupin.guest.domain import element
from emupin.policy.values import ERROR
from emupin.screen.picture import draw
from emupin.screen.terminal import BOLD, FAINT, GREEN, RED, YELLOW, paint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emupin.engine.explanation import Checked, Explanation, Tried
    from emupin.engine.plan import Plan

    Cpus = frozenset[int]
    Line = tuple[str, str, str]
    """What stands at the left, what is folded beside it, and the colour of both."""

NARROWEST = 40
WIDEST_LEFT = 24

ENDS = {"start": "the guest starts, and they stay as they are", "refuse": "the guest is not started"}
"""What `on_failure` means."""


def render(told: Explanation, source: str, width: int, colour: bool) -> str:
    """Lines of at most `width` characters, as far as that can be; all that comes from elsewhere is escaped."""
    sections = (
        ("", _guest(told, source)),
        ("rules", _rules(told)),
        (f"placements of {printable(told.plan.rule or '')}", _placements(told)),
        ("emulator threads", _result(told)),
    )
    blocks = [_block(title, list(lines), width, colour) for title, lines in sections]
    if told.host is not None:
        blocks.append(draw(told.host, told.marks, width, colour))
    return "\n".join(block for block in blocks if block)


def _block(title: str, lines: list[Line], width: int, colour: bool) -> str:
    """A title and the lines below it, what is folded hanging beside the widest of what stands at the left."""
    if not lines:
        return ""
    widths = [len(left) for left, _, _ in lines]
    indent = max((size for size in widths if size <= WIDEST_LEFT), default=WIDEST_LEFT) + 2
    rows = [paint(row, BOLD, colour) for row in _fold(title, "", width)] if title else []
    for left, right, code in lines:
        rows += [paint(row, code, colour) for row in _row(left, printable(right), indent, width)]
    return "".join(f"{row}\n" for row in rows)


def _row(left: str, right: str, indent: int, width: int) -> list[str]:
    """`left` and beside it `right`; below it, where `left` is too wide."""
    beside = _fold(right, " " * indent, width)
    if len(left) > WIDEST_LEFT:
        return [*_fold(left, "    ", width), *beside]
    return [f"{left.ljust(indent)}{beside[0].lstrip(' ')}", *beside[1:]]


def _fold(text: str, indent: str, width: int) -> list[str]:
    first = "" if text[:1] == " " else indent
    room = max(width, len(indent) + NARROWEST)
    folded = textwrap.wrap(text, room, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
    return folded or [""]


def _guest(told: Explanation, source: str) -> Iterator[Line]:
    guest = told.guest
    yield "guest", guest.name, BOLD
    if guest.uuid:
        yield "UUID", guest.uuid, ""
    yield "from", source, ""
    yield "vCPUs", "; ".join(_vcpus(told)) or "none", ""
    if told.host is not None and told.host.within(guest.partition) != told.host.online:
        within = cpuset.format(told.host.within(guest.partition))
        yield "cgroup", f"in {guest.partition or DEFAULT}, which may have CPUs {within or 'none'}", ""


def _vcpus(told: Explanation) -> Iterator[str]:
    """`0 on 4; 1-7 on 5-11`: neighbours with the same pin together."""
    by_pin: dict[str, list[int]] = {}
    for vcpu, pin in pins(told.guest):
        by_pin.setdefault("any CPU" if pin is None else cpuset.format(pin), []).append(vcpu)
    for pin_text, vcpus in by_pin.items():
        yield f"{cpuset.format(vcpus)} on {pin_text}"


def _rules(told: Explanation) -> Iterator[Line]:
    for name, reason in told.mismatches:
        yield f"  {printable(name)}", f"no: {reason}", ""
    if told.plan.rule is None:
        yield "  (end)", told.plan.reason, YELLOW
        return
    yield f"  {printable(told.plan.rule)}", "takes the guest", GREEN
    if told.later:
        yield f"  ({told.later} more)", "not asked", FAINT


def _placements(told: Explanation) -> Iterator[Line]:
    for tried in told.tried:
        yield f"  {printable(tried.text)}", _outcome(tried), _colour_of(tried)
        for check in tried.checks:
            yield f"    {check.name}", f"{check.level:<5}  {_finding(check)}", _finding_colour(check)


def _outcome(tried: Tried) -> str:
    gives = "" if tried.cpus is None else f"CPU{'s' if len(tried.cpus) > 1 else ''} {cpuset.format(tried.cpus)}, "
    why = f": {tried.problem}" if tried.problem else ""
    auto = " (for auto)" if tried.from_auto else ""
    return f"{gives}{tried.outcome}{auto}{why}"


def _colour_of(tried: Tried) -> str:
    return {TAKEN: GREEN, NOT_TRIED: FAINT}.get(tried.outcome, RED)


def _finding(check: Checked) -> str:
    return check.complaint if check.outcome == COMPLAINT and check.complaint else check.outcome


def _finding_colour(check: Checked) -> str:
    if check.outcome == COMPLAINT:
        return RED if check.level == ERROR else YELLOW
    return "" if check.outcome == PASSED else FAINT


def _result(told: Explanation) -> Iterator[Line]:
    plan, guest = told.plan, told.guest
    yield from _without_a_placement(plan)
    yield "  before", _pin(told.before), ""
    yield "  after", _pin(told.after) + (" (no change)" if told.before == told.after else ""), BOLD
    if plan.dedicated:
        yield "  held", "by this guest alone, while it runs", ""
    if plan.follow_iothreads and guest.iothreads and not plan.failed:
        count = len(guest.iothreads)
        yield "  iothreads", f"{count} iothread{' goes' if count == 1 else 's go'} with them", ""
    if plan.vhost is not None:
        alone = ", which this guest alone has" if plan.vhost_dedicated else ""
        yield "  vhost", f"workers on {_pin(plan.vhost)} ({plan.vhost_placement}){alone}; live ones only", ""
    if plan.pin is not None:
        yield "  persist", "recorded in the persistent definition too" if plan.persist else "not recorded there", ""
        cost = slows_allocation(plan.pin, guest, told.host)
        if cost:
            yield "  memory", cost, ""
    elif plan.unstartable:
        yield "  persist", "not recorded: libvirt could not start the guest with this pin", YELLOW
    for key, why in stuck(guest, told.host).items():
        yield "  definition", f"libvirt cannot start the guest with the {element(key)} it has: {why}", RED
    for warning in plan.warnings:
        yield "  warning", warning, YELLOW


def _without_a_placement(plan: Plan) -> Iterator[Line]:
    if plan.failed:
        ends = f"no placement passes its checks; on_failure is {plan.on_failure}: {ENDS[plan.on_failure]}"
        yield "  failed", ends, RED
    if plan.waits:
        yield "  later", WAITING, YELLOW


def _pin(cpus: Cpus | None) -> str:
    return "no pin of their own" if cpus is None else cpuset.format(cpus)
