"""What a process refuses to start with."""

import pytest

from ncfast.config.problems import ConfigError
from ncfast.core.errors import NcfastError
from ncfast.net.seam import OWN_DESCRIPTORS
from ncfast.serve.process import FEWEST_CONNECTIONS, check_descriptors, check_uvloop


@pytest.mark.parametrize("version", ["0.21.0", "0.22.1", "0.9"])
def test_an_old_uvloop_is_refused_with_the_remedy(version):
    with pytest.raises(NcfastError, match="uvloop>=0.23"):
        check_uvloop(version)


@pytest.mark.parametrize("version", ["0.23.0", "0.24.1.dev2", "1.0.0"])
def test_others_are_taken(version):
    check_uvloop(version)


@pytest.mark.parametrize("reserve", [0, 64])
def test_too_few_descriptors_are_refused_with_the_remedy(reserve):
    enough = OWN_DESCRIPTORS + reserve + FEWEST_CONNECTIONS
    check_descriptors(enough, reserve)
    with pytest.raises(ConfigError, match=f"may have {enough - 1} descriptors, and needs {enough}.*ulimit -n"):
        check_descriptors(enough - 1, reserve)
