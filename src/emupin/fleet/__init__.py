"""Many domain XML documents at once: found, decided, rewritten, proved."""
