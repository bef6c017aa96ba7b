"""The cost model against hand counts, and the laws that any layout must keep."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superscope.theory import cost
from superscope.theory.cost import Machine, Mesh

SHAPES = st.tuples(st.integers(8, 4096), st.integers(256, 2**17), st.integers(1, 128), st.integers(64, 2**16))


def test_one_step_by_hand() -> None:
    """d = 768, n = 24 576, B = 4 096: one product of 2 B d n, Adam's 24 bytes of each of 2 n d parameters."""
    found = cost.step_cost(768, 24576, 32, 4096, mixed=False)
    assert found.product == 2 * 4096 * 768 * 24576
    assert found.sparse == 8 * 4096 * 32 * 768
    assert found.exchange == 0
    adam = 24 * 2 * 768 * 24576
    # Four sparse passes over k rows of d numbers a token, and four over the batch.
    assert found.traffic == adam + 4 * 4096 * 32 * 768 * 4 + 4 * 4096 * 768 * 4


def test_operations_of_a_large_run() -> None:
    """16 Mi latents, 8 192 dimensions, 10 B tokens: 2.75e21 operations where gradients are sparse, six times dense."""
    sparse = cost.training_operations(8192, 2**24, 256, 1e10)
    assert sparse == pytest.approx(2.75e21, rel=1e-3)
    assert cost.training_operations(8192, 2**24, 256, 1e10, sparse=False) == pytest.approx(6 * 2 * 8192 * 2**24 * 1e10)


@given(SHAPES, st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]))
def test_devices_share_the_product_and_no_more_than_share_it(
    shape: tuple[int, int, int, int], data: int, shards: int
) -> None:
    d, n, k, batch = shape
    mesh = Mesh(data, shards)
    alone, shared = cost.step_cost(d, n, k, batch), cost.step_cost(d, n, k, batch, mesh=mesh)
    assert shared.product * mesh.devices == pytest.approx(alone.product)
    assert shared.sparse * mesh.devices == pytest.approx(alone.sparse)
    assert (shared.exchange == 0) == (mesh.devices == 1)


@given(SHAPES, st.sampled_from([2, 4, 8]))
def test_sharing_atoms_exchanges_activations_and_sharing_rows_gradients(
    shape: tuple[int, int, int, int], devices: int
) -> None:
    d, n, k, batch = shape
    atoms = [cost.step_cost(d, size, k, batch, mesh=Mesh(1, devices)).exchange for size in (n, 2 * n)]
    rows = [cost.step_cost(d, n, k, size, mesh=Mesh(devices, 1)).exchange for size in (batch, 2 * batch)]
    assert atoms[0] == atoms[1]
    assert rows[0] == rows[1]


@given(SHAPES, st.sampled_from([1, 2, 4]))
def test_more_shards_never_need_more_memory(shape: tuple[int, int, int, int], shards: int) -> None:
    d, n, k, batch = shape
    memory = [cost.training_memory(d, n, k, batch, mesh=Mesh(1, size)) for size in (shards, 2 * shards)]
    assert memory[1] < memory[0]


def test_layouts_that_fit_are_a_tail_of_all_layouts() -> None:
    everything = cost.meshes(8192, 2**20, 64, 8192, 8, math.inf)
    assert [str(mesh) for mesh in everything] == ["8 x 1", "4 x 2", "2 x 4", "1 x 8"]
    some = cost.meshes(8192, 2**20, 64, 8192, 8, 100e9)
    assert some
    assert some == everything[-len(some) :]
    assert cost.meshes(8192, 2**20, 64, 8192, 8, 1e9) == ()


def test_seconds_add_up() -> None:
    machine = Machine(
        "slow", 10.0, bandwidth=5.0, memory=1.0, link=2.0, encoding=4.0, overhead=0.5, bookkeeping=3.0, source=""
    )
    step = cost.StepCost(product=20.0, sparse=1.0, uses=2.0, traffic=10.0, exchange=4.0)
    assert step.seconds(machine) == 5 + 6 + 2 + 2 + 0.5


@given(SHAPES)
def test_the_balanced_batch_is_half_product(shape: tuple[int, int, int, int]) -> None:
    d, n, k, _ = shape
    for machine in cost.MACHINES:
        batch = cost.balanced_batch(d, n, k, machine)
        if batch < 2**40:
            step = cost.step_cost(d, n, k, max(round(batch), 1))
            assert step.product / machine.encoding / step.seconds(machine) == pytest.approx(0.5, abs=0.5 / batch)


def test_storage_counts_each_rows_origin_once() -> None:
    assert cost.storage(100, 10, sites=3) == 10 * (600 + 20)


@pytest.mark.parametrize(
    ("change", "store", "why"),
    [
        ({}, True, "and they take 1.56 GB on disk"),
        ({"uses": 1}, False, "used only once"),
        ({"uses": 0.3}, False, "used only once"),
        ({"n": 10**6}, False, "would be 9% of the whole work, less than keeping"),
        ({"room": 10**6}, False, "there are 0.001 GB on disk"),
        ({"room": 10**6, "where": "in memory"}, False, "they take 1.54 GB and there are 0.001 GB in memory"),
    ],
)
def test_store_or_recompute(change: dict[str, Any], store: bool, why: str) -> None:
    given: dict[str, Any] = {"parameters": 10**8, "d": 768, "n": 6144, "k": 32, "tokens": 10**6}
    choice = cost.store_or_recompute(**{**given, "uses": 5, "room": 10**12, **change})
    assert choice.store == store
    assert why in choice.why


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="k = 9 of n = 8 latents cannot be active"):
        cost.step_cost(4, 8, 9, 16)
    with pytest.raises(ValueError, match="a mesh of 1 x 16 wants at least 16 latents"):
        cost.step_cost(4, 8, 2, 16, mesh=Mesh(1, 16))
    with pytest.raises(ValueError, match="batch must be at least 1; got 0"):
        cost.step_cost(4, 8, 2, 0)
    with pytest.raises(ValueError, match="tokens must lie in"):
        cost.training_operations(4, 8, 2, -1)
    with pytest.raises(ValueError, match="shards must be at least 1"):
        Mesh(1, 0)
    with pytest.raises(ValueError, match="bandwidth must lie in"):
        Machine("none", 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, "")
