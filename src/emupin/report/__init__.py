"""One self-contained HTML page of decisions: of the audit trails of many hosts, or of what a policy would do."""
