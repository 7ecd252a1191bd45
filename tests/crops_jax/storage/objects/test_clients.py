import sys

import pytest

from crops_jax.errors import InputError
from crops_jax.storage.objects import clients
from crops_jax.storage.objects.store import ObjectStore


def test_a_package_that_is_missing_is_named(monkeypatch):
    clients.file_system_of.cache_clear()
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InputError, match=r"s3:// needs the package s3fs .*pip install 'crops_jax\[storage\]'"):
        ObjectStore("s3://bucket/a")
