from __future__ import annotations

import pytest
import torch

from gcdis_ray.training.torch_settings import torch_settings


@pytest.mark.parametrize("same_shapes", [True, False])
def test_cudnn_tries_its_algorithms_on_a_gpu_only_and_for_equal_shapes(same_shapes: bool):
    tried, threads = torch.backends.cudnn.benchmark, torch.get_num_threads()
    with torch_settings(2, torch.device("cuda"), same_shapes=same_shapes):
        assert torch.backends.cudnn.benchmark == same_shapes
        assert torch.get_num_threads() == 2
    with torch_settings(1, torch.device("cpu"), same_shapes=same_shapes):
        assert torch.backends.cudnn.benchmark == tried
    assert (torch.backends.cudnn.benchmark, torch.get_num_threads()) == (tried, threads)
