"""Serving: one two-stage pipeline for Label Studio, REST clients and objects in S3, on onnxruntime alone."""
