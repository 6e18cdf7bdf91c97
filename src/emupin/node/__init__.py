"""What acts on this machine: the policy in force, claims, a live decision, and its enforcement."""
