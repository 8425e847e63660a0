"""Synthetic skin pictures with exact truth: dermoscopy-like and clinical-like, six skin types, seven diagnoses.

Made for a first run without any data, for tests and for demonstrations. They are drawings: nothing measured on them
says anything about real skin, and every one of them is marked as synthetic.
"""

from dermloop.demo.files import write_demo
from dermloop.demo.picture import DemoImage, render
from dermloop.demo.scene import DemoOptions, View

__all__ = ["DemoImage", "DemoOptions", "View", "render", "write_demo"]
