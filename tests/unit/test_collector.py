"""The garbage collector is back after imports, whatever became of them, and leaves alone what they made."""

import gc

import pytest

from refine.collector import imports_stay, leave


def test_collector_is_back_after_imports():
    before = gc.get_freeze_count()
    try:
        with imports_stay():
            assert not gc.isenabled()
        assert gc.isenabled() and gc.get_freeze_count() > before
        with pytest.raises(ImportError), imports_stay():
            raise ImportError
        assert gc.isenabled()
        kept = [[]]
        leave()
        assert all(kept is not other for other in gc.get_objects())
    finally:
        gc.unfreeze()
