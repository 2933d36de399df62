"""ONNX models made by hand."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper


def product(side: int) -> bytes:
    """Return a model that multiplies its input with a matrix of side × side float32."""
    entry, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", side]) for name in ("features", "logits"))
    weight = helper.make_tensor("w", TensorProto.FLOAT, [side, side], np.ones(side * side, np.float32).tobytes(), raw=True)
    graph = helper.make_graph([helper.make_node("MatMul", ["features", "w"], ["logits"])], "product", [entry], [out], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
