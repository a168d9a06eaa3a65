"""What a process refuses to start with."""

import pytest

from ncfast.core.errors import NcfastError
from ncfast.serve import check_uvloop


@pytest.mark.parametrize("version", ["0.21.0", "0.22.1", "0.9"])
def test_an_old_uvloop_is_refused_with_the_remedy(version):
    with pytest.raises(NcfastError, match="uvloop>=0.23"):
        check_uvloop(version)


@pytest.mark.parametrize("version", ["0.23.0", "0.24.1.dev2", "1.0.0"])
def test_others_are_taken(version):
    check_uvloop(version)
