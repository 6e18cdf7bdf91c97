"""The live truth: what running guests have against what they should have, and how it is mended."""
