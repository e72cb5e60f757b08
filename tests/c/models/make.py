"""Writes the two models of test_result.c, whose outputs are arithmetic on the made-up study.

bright.onnx labels the voxels above 1200.5; share.onnx tells which share of the voxels is labelled.

pip install onnx; then: python tests/c/models/make.py
"""

import hashlib
import json
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = pathlib.Path(__file__).parent
FLOAT = TensorProto.FLOAT
VOLUME = ["n", 1, "d", "h", "w"]


def write(name, nodes, inputs, output, constants, contract):
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(each, FLOAT, VOLUME) for each in inputs],
        [helper.make_tensor_value_info(output[0], FLOAT, output[1])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="")
    onnx.checker.check_model(model)
    path = HERE / f"{name}.onnx"
    onnx.save(model, path)
    contract |= {"contract": 1, "name": name, "version": "1.0.0", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    contract["grid"] = {"layout": "NCDHW", "orientation": None, "axes": "zyx", "spacing_mm": None, "size": {"rule": "whole"}}
    contract["intensity"] = {"steps": []}
    path.with_suffix(".json").write_text(json.dumps(contract, indent=2) + "\n")


write(
    "bright",
    [helper.make_node("Sub", ["volume", "limit"], ["above"])],
    ["volume"],
    ("above", VOLUME),
    {"limit": np.float32(1200.5)},
    {
        "task": "segment",
        "inputs": [{"name": "volume", "channels": ["volume"]}],
        "output": {"name": "above", "activation": "sigmoid", "labels": [{"channel": 0, "value": 3, "name": "bright"}]},
    },
)
write(
    "share",
    [helper.make_node("ReduceMean", ["mask"], ["share"], axes=[1, 2, 3, 4], keepdims=0)],
    ["mask"],
    ("share", ["n"]),
    {},
    {
        "task": "predict",
        "inputs": [{"name": "mask", "channels": ["mask"]}],
        "mask": {"labels": ["bright"]},
        "output": {"name": "share", "activation": "none", "labels": [{"channel": 0, "name": "bright_share"}], "positive": "bright_share"},
    },
)
