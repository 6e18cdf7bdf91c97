"""A short form of the model: `python tests/node/model.py` runs 100,000 calls and more."""

from __future__ import annotations

from pathlib import Path

import model
import pytest

from emupin.node.book import Book, Claim


@pytest.mark.parametrize("seed", [1, 2])
def test_nobody_shares_what_another_has_alone_in_a_pretended_kernel(tmp_path: Path, seed: int) -> None:
    world = model.run(tmp_path, 300, seed)
    assert world.counts["killed"] > 10


def test_the_oracle_notices_a_ledger_that_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was recorded and seen of guests that have a claim, and what a guest had before: as emupin 0.1 did."""

    def forgets(book: Book, _uuid: str | None) -> dict[str, int]:
        return {**dict.fromkeys(book.running, 0), **{owner: claim.cpus for owner, claim in book.claims.items()}}

    monkeypatch.setattr(Book, "_emulators", forgets)
    monkeypatch.setattr(Claim, "alone", property(lambda claim: claim.cpus if claim.dedicated else 0))
    with pytest.raises(model.ViolationError, match="alone since"):
        model.run(tmp_path, 3000, 1)


def test_the_oracle_notices_vhost_workers_that_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Claim, "promised_alone", property(lambda claim: claim.cpus if claim.dedicated else 0))
    with pytest.raises(model.ViolationError, match="alone since"):
        model.run(tmp_path, 3000, 3)
