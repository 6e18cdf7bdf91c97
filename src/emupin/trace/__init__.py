"""Who took a vCPU's CPU while it wanted to run: counted from the kernel's own scheduling events."""
