"""What keeps the hook from working, and the cure for each of it; one module for each area of a host."""
