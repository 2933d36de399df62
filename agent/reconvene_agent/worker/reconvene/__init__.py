"""The method: pre-processor, sensitivity evaluator, rectifier, post-processor (Eccles et al. 2024, arXiv 2404.16877).

Read ``method.py`` first; each stage has a module of its own.
"""
