"""The result of a check, and how it is shown."""

from handgrad.crosscheck.report import html, text
from handgrad.crosscheck.report.report import RENDERERS

RENDERERS["text"] = text.render
RENDERERS["html"] = html.render
