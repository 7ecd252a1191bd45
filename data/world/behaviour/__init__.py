"""The behaviour of users: sessions, clicks, the feed, and a day of them."""
