import pytest

from evaluations import digits_network


@pytest.fixture(scope="session")
def trained(digits):
    """A network that tests only ask, so that one training does for all."""
    return digits_network(digits)
