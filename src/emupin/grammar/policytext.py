"""A policy written out in full, every default spelled: as YAML or JSON that compiles to the same policy again."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from emupin.base import cpuset
from emupin.policy.values import IOTHREADS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from emupin.policy.values import Policy, Rule

PLAIN = re.compile(r"(?!(?:true|false|on|off|yes|no|y|n|null)$)[a-z][a-z_-]*(:[0-9][0-9,^-]*)?")
"""Text that means the same to every YAML reader without quotes."""


def render(policy: Policy) -> str:
    """The policy as YAML."""
    return "".join(f"{line}\n" for line in _mapping(to_tree(policy), ""))


def render_json(policy: Policy) -> str:
    """The policy as JSON."""
    return json.dumps(to_tree(policy), indent=2, ensure_ascii=False) + "\n"


def to_tree(policy: Policy) -> dict[str, Any]:
    """The policy as the file's own keys and values."""
    host = {
        "networking": policy.networking,
        "reserved": cpuset.format(policy.reserved) or None,
        "pool": cpuset.format(policy.pool) if policy.pool else None,
    }
    return {
        "version": 1,
        "host": _said(host),
        "defaults": {"on_failure": policy.on_failure},
        "rules": [_rule(rule) for rule in policy.rules],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    match = {key: _lists(value) for key, value in vars(rule.match).items()}
    return _said(
        {
            "name": rule.name,
            "match": _said(match),
            "guest": rule.guest,
            "placement": [placement.text for placement in rule.placement],
            "checks": dict(rule.checks),
            "on_failure": rule.on_failure,
            "persist": rule.persist,
            "iothreads": IOTHREADS[rule.follow_iothreads],
            "vhost": [placement.text for placement in rule.vhost] or None,
            "drift": rule.drift,
        }
    )


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(each) for key, each in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _said(parts: dict[str, Any]) -> dict[str, Any]:
    """Without what the policy says nothing about."""
    return {key: value for key, value in parts.items() if value is not None}


def _mapping(parts: dict[str, Any], indent: str) -> Iterator[str]:
    for key, value in parts.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{_key(key)}:"
            yield from _mapping(value, indent + "  ")
        elif isinstance(value, list) and value:
            yield f"{indent}{_key(key)}:"
            yield from _list(value, indent + "  ")
        else:
            yield f"{indent}{_key(key)}: {_scalar(value)}"


def _key(key: str) -> str:
    """Ours are plain words; an extra spec may be called anything."""
    return key if key.isidentifier() and key.isascii() else json.dumps(key, ensure_ascii=False)


def _list(items: list[Any], indent: str) -> Iterator[str]:
    for item in items:
        if isinstance(item, dict):
            first, *rest = _mapping(item, indent + "  ")
            yield f"{indent}- {first.lstrip()}"
            yield from rest
        else:
            yield f"{indent}- {_scalar(item)}"


def _scalar(value: Any) -> str:
    """A text, a number, a truth, or an empty list or mapping."""
    if isinstance(value, str) and PLAIN.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)
