"""The short form of the campaign: one fault in each kind of place, and the hook at work again behind them all."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .campaign import Campaign, build_shim, mixed

SOME = 100
READING = "migrate", "sh", "read"


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Campaign]:
    if not hasattr(ctypes.CDLL(None), "stat64"):
        pytest.skip("needs glibc 2.33 or later: in an earlier one programs call other functions")
    shim = build_shim(tmp_path)
    if not shim:
        pytest.skip("needs a C compiler")
    campaign = Campaign(tmp_path / "host", shim)
    yield campaign
    campaign.close()


def test_no_failing_call_costs_libvirt_its_answer(campaign: Campaign) -> None:
    faults = mixed(campaign.faults())
    assert len(faults) > 10000, "this test can fail"
    assert [complaint for fault in faults[:SOME] if (complaint := campaign.complaint(fault))] == []
    shutil.rmtree(campaign.host.root / "var/log/emupin")
    assert campaign.call("migrate", {})[0] == 0
    assert [entry["outcome"] for entry in campaign.host.audit()][-1] == "rewritten"


def test_the_shell_prints_no_document_that_it_could_not_read_to_its_end(campaign: Campaign) -> None:
    """A read that fails ends the document for the shell, and only some of its reads come after the first bytes."""
    faults = [each for each in campaign.faults() if (each.operation, each.program, each.function) == READING]
    assert len(faults) > 50, "this test can fail"
    assert [complaint for fault in faults if (complaint := campaign.complaint(fault))] == []
