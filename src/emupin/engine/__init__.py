"""The decision, pure: facts of the host, checks, placements and the plan."""
