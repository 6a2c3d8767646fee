"""``report.html``: what a search has found and how sure it is, as one page that needs nothing but itself."""

from search.report.page import ReportData, Trajectories, write_report

__all__ = ["ReportData", "Trajectories", "write_report"]
