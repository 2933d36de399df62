"""From a trained model to the file that serves: ONNX export, parity with torch, latency, prediction."""
