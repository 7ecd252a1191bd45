"""Self-contained pages and their charts: inline SVG, pure functions from numbers to markup, nothing that is loaded.

Every chart is 360 units wide, so that its text has its real size on a phone and in a column of a wide page. Colours
are the page's: --ink, --quiet, --line and --series-1 to --series-6 (CSS custom properties).
"""
