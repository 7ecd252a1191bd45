"""The behaviour of users: search sessions, clicks, views of the feed, and one served day of all three."""
