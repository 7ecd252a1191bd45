import pytest

from crops_jax.storage.objects import clients


@pytest.fixture(params=["s3", "gs"])
def server(request):
    """The proxy before a server of each kind, and its scheme."""
    return request.getfixturevalue("gcs" if request.param == "gs" else "s3"), request.param


@pytest.fixture
def new_clients():
    """Lets a test open clients with settings of its own."""
    clients.file_system_of.cache_clear()
    yield
    clients.file_system_of.cache_clear()
