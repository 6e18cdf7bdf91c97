"""Keeps the emulator threads of libvirt QEMU guests where a policy wants them."""

__version__ = "0.2.0"
