"""The heavy process: the only home of torch, numpy, onnx and onnxruntime. One worker lives for one request."""
