"""Untrained graphs of the real sizes for the serving bench: YOLO11n at 640 and VGG16 with a pooled linear head."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CLASSES = 3


def detector(folder: Path) -> None:
    """Writes `yolo11n.pt` and `yolo11n.onnx`."""
    os.environ["YOLO_OFFLINE"] = "1"
    from ultralytics import YOLO

    model = YOLO("yolo11n.yaml")
    model.save(str(folder / "yolo11n.pt"))
    model.export(format="onnx", dynamic=True, imgsz=640, opset=17, simplify=True)


def classifier(folder: Path) -> None:
    """Writes `vgg16.keras` and `vgg16.onnx`, the latter with logits and activation map."""
    import keras
    import tensorflow as tf
    import tf2onnx

    trunk = keras.applications.VGG16(include_top=False, weights=None, input_shape=(224, 224, 3))
    head = keras.layers.Dense(CLASSES)
    pooled = keras.layers.GlobalAveragePooling2D()(trunk.output)
    keras.Model(trunk.input, head(pooled)).save(folder / "vgg16.keras")
    signature = (tf.TensorSpec((None, 224, 224, 3), tf.float32, name="crops"),)

    @tf.function(input_signature=signature)
    def graph(crops: tf.Tensor) -> dict[str, tf.Tensor]:
        cam = tf.tensordot(trunk(crops), head.kernel, 1)
        return {"logits": tf.reduce_mean(cam, [1, 2]) + head.bias, "cam": cam}

    tf2onnx.convert.from_function(graph, input_signature=signature, opset=17, output_path=str(folder / "vgg16.onnx"))


if __name__ == "__main__":
    os.chdir(sys.argv[2])
    {"detector": detector, "classifier": classifier}[sys.argv[1]](Path(sys.argv[2]))
