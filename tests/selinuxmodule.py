"""The optional SELinux module, and what a policy must have that it is loaded into."""

from __future__ import annotations

from checkout import CHECKOUT

MODULE = CHECKOUT / "packaging" / "selinux" / "emupin.cil"

TYPES = """\
(type virtqemud_t)
(type virt_hook_t)
(type virt_hook_unconfined_t)
(roletype {role} virtqemud_t)
(roletype {role} virt_hook_unconfined_t)
(boolean virt_hooks_unconfined false)
"""
"""What Fedora's policy has of libvirt, and Debian's lacks."""

BASE = """\
(class file (getattr open map read execute ioctl entrypoint write))
(class fd (use))
(class fifo_file (getattr read write append ioctl lock))
(class process (transition sigchld))
(classorder (file fd fifo_file process))
(sid kernel)
(sidorder (kernel))
(sensitivity s0)
(sensitivityorder (s0))
(level low (s0))
(levelrange low_low (low low))
(user system_u)
(userrange system_u low_low)
(userlevel system_u low)
(role system_r)
(userrole system_u system_r)
(type kernel_t)
(roletype system_r kernel_t)
(context kernel_context (system_u system_r kernel_t low_low))
(sidcontext kernel kernel_context)
(handleunknown allow)
(mls true)
(allow kernel_t kernel_t (process (transition)))
"""
"""The smallest policy that there is: enough for a compiler."""
