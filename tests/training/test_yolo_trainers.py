"""What ultralytics' training is given on top: pictures mirrored at the diagonal, numbers of half the width."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]


def test_a_picture_mirrored_at_the_diagonal_takes_box_and_outline_along() -> None:
    from ultralytics.utils.instance import Instances

    from training.yolo_trainers import Transpose

    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    picture[1:3, 2:7] = 255
    corners = np.array([[[2, 1], [7, 1], [7, 3], [2, 3]]], dtype=np.float32)
    boxes = np.array([[2, 1, 7, 3]], dtype=np.float32)
    labels = {"img": picture.copy(), "instances": Instances(boxes, corners, bbox_format="xyxy", normalized=False)}
    found = Transpose(1.0)(labels)
    assert (found["img"] == picture.transpose(1, 0, 2)).all()
    assert found["instances"].segments.tolist() == corners[..., ::-1].tolist()
    found["instances"].convert_bbox("xyxy")
    assert found["instances"].bboxes.tolist() == [[1, 2, 3, 7]]
    assert Transpose(0.0)(labels) is labels


def test_a_network_trained_in_half_width_answers_in_full_width() -> None:
    import torch

    from training.yolo_trainers import _halve

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 4, 1)
            self.seen: list[torch.dtype] = []

        def predict(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            found = self.layer(batch)
            self.seen.append(found.dtype)
            return {"scores": found}

    network = Network().train()
    _halve(network)
    assert network.predict(torch.ones(1, 3, 2, 2))["scores"].dtype is torch.float32
    network.eval()
    network.predict(torch.ones(1, 3, 2, 2))
    assert network.seen == [torch.bfloat16, torch.float32]
