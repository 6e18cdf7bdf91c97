"""The ground: what knows nothing of guests."""
