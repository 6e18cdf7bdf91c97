"""What acts on this machine: claims, a live decision, and its enforcement."""
