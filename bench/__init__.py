"""depthbench: dynamic-depth image classifiers compared on equal terms."""

__version__ = "0.1.0"
