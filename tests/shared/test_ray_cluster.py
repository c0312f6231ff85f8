"""Whether a cluster is large enough, without one."""

import pytest

from sspa.shared.errors import UserError
from sspa.shared.ray_cluster import check_resources, last_line


@pytest.mark.parametrize(
    ("cluster", "gpus", "expected"),
    [({"CPU": 8.0}, 4, None), ({"CPU": 8.0, "GPU": 8.0}, 4, 4), ({"CPU": 8.0, "GPU": 2.0}, 1, 1)],
)
def test_each_of_two_actors_gets_its_gpus(cluster: dict[str, float], gpus: int, expected: int | None) -> None:
    assert check_resources(cluster, 2, gpus) == expected


def test_a_cluster_that_is_too_small_is_an_error() -> None:
    with pytest.raises(UserError, match="--ray 2: the cluster has 7 GPUs, and 2 actors need 8"):
        check_resources({"CPU": 64.0, "GPU": 7.0}, 2, 4)
    with pytest.raises(UserError, match="the cluster has 1 CPUs, and 2 actors need 2"):
        check_resources({"CPU": 1.0}, 2, 0)


def test_of_an_actors_error_its_last_line_is_shown() -> None:
    assert last_line(ValueError("Traceback\n  File x\n\n  ValueError: no weights \n")) == "ValueError: no weights"
