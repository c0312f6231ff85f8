import json

import pytest
from torch.distributed import HashStore

from sspa.shared.errors import UserError
from sspa.shared.liveness import Liveness
from sspa.stage2_training.compute.watch import Watch, patience_s, watched


def three() -> tuple[list[Watch], list[Liveness]]:
    store, doing = HashStore(), [Liveness() for _ in range(3)]
    return [Watch(store, rank, 3, 60, own) for rank, own in enumerate(doing)], doing


def looked(watches: list[Watch], now: float) -> str | None:
    """What the first finds after all have reported."""
    for watch in watches:
        watch.tell()
    return watches[0].look(now)


def test_the_process_that_does_nothing_is_named() -> None:
    watches, doing = three()
    doing[1].note("epoch 2/4: 32/1600 images")
    with watches[0].waiting(), watches[2].waiting():
        assert looked(watches, 0) is None
        assert looked(watches, 60) is None
        found = looked(watches, 61)
    assert found is not None
    assert found.startswith("process 1 on ")
    assert found.endswith("has done nothing for 1 minutes; its last: epoch 2/4: 32/1600 images")


def test_who_moves_does_not_hang() -> None:
    watches, doing = three()
    for second in range(0, 300, 50):
        for own in doing:
            own.note("image tower")
        assert looked(watches, second) is None


def test_a_process_that_no_longer_reports_hangs_whatever_it_said_last() -> None:
    watches, doing = three()
    with watches[1].waiting():
        looked(watches, 0)
    with watches[0].waiting():
        doing[2].note("epoch")
        for watch in (watches[0], watches[2]):
            watch.tell()
        watches[0].look(30)
        found = watches[0].look(61)
    assert found is not None
    assert found.startswith("process 1 on ")
    assert "process 0" not in found


def test_waiting_is_no_hanging_unless_all_wait() -> None:
    watches, doing = three()
    with watches[0].waiting(), watches[1].waiting():
        looked(watches, 0)
        doing[2].note("reading")
        assert looked(watches, 61) is None
        with watches[2].waiting():
            looked(watches, 62)
            found = looked(watches, 150)
    assert found is not None
    assert found.startswith("all 3 processes wait for each other")


def test_who_has_not_started_or_has_ended_is_not_waited_for() -> None:
    watches, doing = three()
    watches[1].tell(ended=True)
    for second in (0, 61, 200):
        doing[0].note("epoch")
        watches[0].tell()
        assert watches[0].look(second) is None


def test_what_is_told_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "gpu-7")
    store, own = HashStore(), Liveness()
    own.note("résumé")
    Watch(store, 5, 8, 60, own).tell()
    own_words = {"reports": 1, "count": 1, "doing": "résumé", "waiting": False, "ended": False}
    assert json.loads(store.get("5")) == {"host": "gpu-7", **own_words}


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf", "nan"])
def test_patience_is_a_number_of_minutes(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SSPA_PATIENCE_MINUTES", text)
    with pytest.raises(UserError, match="SSPA_PATIENCE_MINUTES"):
        patience_s()
    monkeypatch.setenv("SSPA_PATIENCE_MINUTES", "2")
    assert patience_s() == 120


def test_the_others_hear_of_a_process_before_it_does_anything() -> None:
    """It may hang at once; the watch's own thread would first have told them a tenth of the patience later."""
    watches, _ = three()
    with watched(watches[1], patience=1000):
        assert watches[0].look(0) is None
        found = watches[0].look(61)
    assert found is not None
    assert found.startswith("process 1 on ")
