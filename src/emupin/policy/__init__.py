"""The policy: its values, and which rule takes a guest."""
