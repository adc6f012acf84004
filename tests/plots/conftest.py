import matplotlib
import pytest
from matplotlib import pyplot

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    """No figure outlives its test, nor is any there before."""
    assert not pyplot.get_fignums()
    yield
    pyplot.close("all")
