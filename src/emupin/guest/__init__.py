"""One guest: its XML, libvirt's status of it, and its threads."""
