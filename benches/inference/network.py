"""Makes the network of the bench: network.py FOLDER writes unet.onnx and its contract, unet.json. Needs numpy and onnx.

A 3-D U-Net (Çiçek et al. 2016) of 16, 32, 64 and 128 channels, two 3 x 3 x 3 convolutions a level, transposed convolutions up, three classes;
any batch of 96 x 96 x 96 windows. Its weights are random and always the same: time does not depend on them.
"""

import hashlib
import json
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = (16, 32, 64, 128)
CLASSES = 3
WINDOW = 96


class Graph:
    def __init__(self):
        self.random = np.random.default_rng(8)
        self.nodes, self.weights = [], []

    def node(self, kind, inputs, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def weight(self, shape, inputs):
        name = f"w{len(self.weights)}"
        values = self.random.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / inputs))
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def convolution(self, x, before, after, side):
        return self.node("Conv", [x, self.weight((after, before) + (side,) * 3, before * side**3)], pads=[side // 2] * 6)

    def level(self, x, before, after):
        for count in (before, after):
            x = self.node("Relu", [self.convolution(x, count, after, 3)])
        return x


def unet():
    graph, kept, x, before = Graph(), [], "x", 1
    for at, count in enumerate(CHANNELS):
        x = graph.level(x, before, count)
        before = count
        if at + 1 < len(CHANNELS):
            kept.append(x)
            x = graph.node("MaxPool", [x], kernel_shape=[2] * 3, strides=[2] * 3)
    for count in reversed(CHANNELS[:-1]):
        up = graph.node("ConvTranspose", [x, graph.weight((before, count, 2, 2, 2), before * 8)], strides=[2] * 3)
        x = graph.level(graph.node("Concat", [kept.pop(), up], axis=1), 2 * count, count)
        before = count
    graph.nodes.append(helper.make_node("Conv", [x, graph.weight((CLASSES, before, 1, 1, 1), before)], ["y"]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, WINDOW, WINDOW, WINDOW])
        for name, channels in (("x", 1), ("y", CLASSES))
    ]
    made = helper.make_graph(graph.nodes, "unet", ends[:1], ends[1:], graph.weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main():
    folder = pathlib.Path(sys.argv[1])
    model = unet()
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    (folder / "unet.onnx").write_bytes(content)
    contract = {
        "contract": 1, "task": "segment", "name": "bench-unet", "version": "1", "sha256": hashlib.sha256(content).hexdigest(),
        "inputs": [{"name": "x", "channels": ["volume"]}],
        "grid": {
            "layout": "NCDHW", "orientation": None, "axes": "zyx", "spacing_mm": None,
            "size": {"rule": "sliding", "window": [WINDOW] * 3, "overlap": 0.5, "blend": "gaussian", "batch": 1},
        },
        "intensity": {"steps": [{"step": "zscore"}]},
        "output": {
            "name": "y", "activation": "argmax",
            "labels": [{"channel": 1, "value": 1, "name": "one"}, {"channel": 2, "value": 2, "name": "two"}],
        },
    }
    (folder / "unet.json").write_text(json.dumps(contract, indent=1))


if __name__ == "__main__":
    main()
