"""One page that shows what a run reached: figures, curves and pictures."""

from centermask.report.build import Report, build_report

__all__ = ['Report', 'build_report']
