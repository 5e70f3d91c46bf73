"""A job's own request laid over its batch's."""

import msgspec

from lanai.model.request import AS_BATCH, Check, JobRequest
from lanai.model.resources import Shape

BATCH = Shape(cpu_milli=2000, memory_bytes=1 << 30, gpu_milli=1000, named=(("disk", 4), ("net", 1)), time_limit_us=7)


def test_a_job_that_asks_for_nothing_has_its_batchs_shape() -> None:
    assert AS_BATCH.over(BATCH) == BATCH


def test_what_a_job_asks_for_replaces_its_batchs_and_zero_takes_away() -> None:
    request = JobRequest(cpu_milli=500, memory_bytes=9, gpu_milli=0, named=(("arm", 2), ("disk", 0)), time_limit_s=1.5)
    assert request.over(BATCH) == Shape(
        cpu_milli=500, memory_bytes=9, gpu_milli=0, named=(("arm", 2), ("net", 1)), time_limit_us=1_500_000
    )


def test_a_job_may_ask_for_nodes_of_its_own() -> None:
    assert JobRequest(nodes=3).over(Shape(tasks_per_node=2)) == Shape(nodes=3, tasks_per_node=2)
    assert AS_BATCH.over(Shape(nodes=3)).nodes == 3


def test_requests_and_checks_travel() -> None:
    request = JobRequest(gpu_milli=0, named=(("arm", 2),))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=JobRequest) == request
    check = Check("out", "line+", b"caf\xe9.txt")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(check), type=Check) == check
    assert hash(request) == hash(JobRequest(gpu_milli=0, named=(("arm", 2),)))
