"""A survey as JSON values: CPU lists as text, times in seconds, null where nothing is known or there is no pin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emupin.base import cpuset

if TYPE_CHECKING:
    from emupin.live.drift import Assessment, Drift, Placed
    from emupin.live.observe import Counters, Observed
    from emupin.live.rates import Rates, RatesByGuest
    from emupin.live.survey import Survey

    Cpus = frozenset[int]


def to_json(survey: Survey, rates: RatesByGuest | None = None) -> dict[str, Any]:
    return {
        "policy": survey.policy,
        "guests": [_guest(each, (rates or {}).get(each.assessment.live.status.pid)) for each in survey.guests],
        "errors": list(survey.errors),
        "remarks": list(survey.remarks),
        "summary": survey.counts,
    }


def _guest(observed: Observed, rates: dict[int, Rates] | None) -> dict[str, Any]:
    found = observed.assessment
    status, group = found.live.status, found.live.group
    return {
        "name": found.guest.name,
        "uuid": found.guest.uuid,
        "pid": status.pid,
        "state": status.state,
        "in_line": found.in_line,
        "plan": _plan(found),
        "live_pin": cpuset.text(found.live_pin),
        "persistent_pin": cpuset.text(found.persistent_pin),
        "persistent_definition": found.persistence,
        "cgroup": {"path": group.path, "cpus": cpuset.text(group.cpus), "effective": cpuset.text(group.effective)}
        if group
        else None,
        "drifts": [_drift(each) for each in found.drifts],
        "threads": [_thread(each, observed.counters[each.thread.tid], rates) for each in found.threads],
    }


def _plan(found: Assessment) -> dict[str, Any]:
    plan = found.plan
    return {
        "rule": plan.rule,
        "placement": plan.placement,
        "cpus": cpuset.text(plan.cpus),
        "vhost": cpuset.text(plan.vhost),
        "dedicated": plan.dedicated,
        "persist": plan.persist,
        "iothreads": plan.follow_iothreads,
        "failed": plan.failed,
        "reason": found.problem or plan.reason,
        "warnings": list(plan.warnings),
    }


def _drift(drift: Drift) -> dict[str, Any]:
    return {
        "where": drift.where,
        "what": drift.what,
        "tid": drift.tid,
        "expected": cpuset.text(drift.expected),
        "found": cpuset.text(drift.found),
        "cause": drift.cause,
    }


def _thread(placed: Placed, counters: Counters, rates: dict[int, Rates] | None) -> dict[str, Any]:
    thread = placed.thread
    answer = {
        "tid": thread.tid,
        "name": thread.name,
        "kind": thread.kind,
        "number": thread.number,
        "allowed": cpuset.text(thread.allowed),
        "expected": cpuset.text(placed.expected),
        "drift": placed.strays,
        "last_cpu": counters.cpu,
        "voluntary_switches": counters.voluntary,
        "involuntary_switches": counters.involuntary,
        "migrations": counters.migrations,
        "run_seconds": _seconds(counters.run),
        "wait_seconds": _seconds(counters.wait),
    }
    if rates is not None:
        mine = rates.get(thread.tid)
        answer["per_second"] = dict(mine.__dict__) if mine else None
    return answer


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9
