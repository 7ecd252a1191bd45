"""Self-contained pages and their charts. Charts are inline SVG, made by pure functions from numbers to markup.

A page loads no other file. Every chart is 360 units wide, so that its text has its real size on a phone and in a column
of a wide page. Charts use the colours of the page: --ink, --quiet, --line and --series-1 to --series-6 (CSS custom
properties).
"""
