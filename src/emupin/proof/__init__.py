"""The audit trail as its readers have it: its files, its proof, and each decision made again."""
