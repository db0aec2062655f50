"""The garbage collector is back after imports, whatever became of them, and leaves alone what they made."""

import gc

import pytest

from refine.collector import imports_stay, leave


def test_collector_is_back_after_imports(tmp_path, monkeypatch):
    (tmp_path / "brand_new.py").write_text("kept = [[] for _ in range(1000)]")
    monkeypatch.syspath_prepend(tmp_path)
    before = gc.get_freeze_count()
    try:
        with imports_stay():
            assert not gc.isenabled()
            import brand_new  # type: ignore[import-not-found]
        after = gc.get_freeze_count()
        assert gc.isenabled() and after > before + len(brand_new.kept)
        with imports_stay():
            import brand_new
        assert gc.get_freeze_count() == after  # a later job of a sweep leaves its garbage to the collector
        with pytest.raises(ImportError), imports_stay():
            raise ImportError
        assert gc.isenabled()
        kept = [[]]
        leave()
        assert all(kept is not other for other in gc.get_objects())
    finally:
        gc.unfreeze()
