"""The review's pages: signed in with one's Label Studio login, each role with what it may see."""

from review_workflow.dashboard.pages import add_dashboard

__all__ = ["add_dashboard"]
