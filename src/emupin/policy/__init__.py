"""The policy: its values, which rule takes a guest, and where it is kept."""
