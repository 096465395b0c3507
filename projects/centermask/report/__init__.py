"""One page about a run: figures, curves and images."""

from centermask.report.build import Report, build_report, report_options

__all__ = ['Report', 'build_report', 'report_options']
