"""Random hosts: any topology that a kernel may show."""

from __future__ import annotations

from hypothesis import strategies as st

from emupin.engine.host import Host


@st.composite
def hosts(draw: st.DrawFn) -> Host:
    """Any machine: CPUs here and there, cores of any size, several to a cache, caches to a node."""
    online = sorted(draw(st.sets(st.integers(0, 400), min_size=1, max_size=40)))
    core_of = {cpu: draw(st.integers(0, 15)) for cpu in online}
    cache_of = {core: draw(st.integers(0, 5)) for core in range(16)}
    node_of = {cache: draw(st.sampled_from((0, 1, 2, 8, 252))) for cache in range(6)}
    caches = {cpu: cache_of[core_of[cpu]] for cpu in online}
    nodes = {cpu: node_of[caches[cpu]] for cpu in online}
    some = st.sets(st.integers(0, 400), max_size=5).map(frozenset)
    has_l3 = draw(st.booleans())
    return Host(
        frozenset(online),
        draw(some),
        draw(some),
        {node: frozenset(cpu for cpu in online if nodes[cpu] == node) for node in sorted(set(nodes.values()))},
        groups(core_of),
        groups(caches) if has_l3 else (),
    )


def groups(by_cpu: dict[int, int]) -> tuple[frozenset[int], ...]:
    sets = [frozenset(cpu for cpu in by_cpu if by_cpu[cpu] == group) for group in set(by_cpu.values())]
    return tuple(sorted(sets, key=min))
