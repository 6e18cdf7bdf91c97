"""The decision, pure: facts of the host, checks, placements and the plan.

"The guide", here and in the tests, is the page on emulator threads in Red Hat's documentation for finding packet loss
on OpenStack Platform with OVS-DPDK. What it says, and where that is decided:

- never on the CPU of vCPU 1 or above, where a guest polls: `checks.vcpu_overlap`, `checks.iothread_overlap`;
- the CPU of vCPU 0 with DPDK in the guest and on the host, a CPU of its own with kernel networking on either side:
  `placements.expand`, for `auto`;
- a CPU of its own runs no vCPU, lies on the guest's NUMA node and handles no interrupts of network cards:
  `pool`, `checks.numa`, `checks.interrupts`;
- of several isolated CPUs the lowest gets everything: `checks.isolated`;
- Nova's default, the CPUs of all vCPUs together, is what a rule replaces: `plan`.
"""
