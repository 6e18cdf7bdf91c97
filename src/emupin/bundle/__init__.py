"""The hook's modules from one file."""
