"""Imports of large libraries, without garbage collection."""

import gc

import pytest

from sspa.shared.heavy_imports import heavy_import


def test_garbage_is_collected_before_and_after_but_not_meanwhile() -> None:
    assert gc.isenabled()
    with heavy_import():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_import_that_fails_leaves_collection_on() -> None:
    with pytest.raises(ImportError), heavy_import():
        raise ImportError
    assert gc.isenabled()


def test_whoever_has_turned_collection_off_finds_it_off() -> None:
    gc.disable()
    try:
        with heavy_import():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
