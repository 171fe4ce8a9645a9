"""Cost: parameters, MACs, latency, throughput, memory and cold start, beside the paper's figures.

Rows need no downloads: cost does not depend on the weights.
"""
