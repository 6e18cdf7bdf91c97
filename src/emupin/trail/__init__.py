"""The audit trail, written and read."""
