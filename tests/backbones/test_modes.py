from __future__ import annotations

import pytest
from torch import nn

from gcdis_ray.backbones.modes import in_eval


def test_every_submodule_gets_its_own_mode_back_whatever_happens():
    module = nn.Sequential(nn.Linear(1, 1), nn.Dropout())
    module[1].eval()

    def fail() -> None:
        with in_eval(module):
            assert not any(part.training for part in module.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert module.training
    assert module[0].training
    assert not module[1].training
