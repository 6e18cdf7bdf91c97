"""The grammar of the policy file: from bytes to a `Policy`, and back to text. It takes its words from the engine."""
