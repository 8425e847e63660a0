"""The local stack: Label Studio, the ML backend, the review service and the job worker as real processes."""

from dermloop.stack.ports import Ports, free_ports
from dermloop.stack.programs import BACKEND, LABEL_STUDIO, REVIEW, WORKER
from dermloop.stack.secrets import Login
from dermloop.stack.stack import Stack

__all__ = ["BACKEND", "LABEL_STUDIO", "REVIEW", "WORKER", "Login", "Ports", "Stack", "free_ports"]
