"""Requirements of tests that a machine may lack; each hint is shown once, at the end.

If `CI` is set, a missing requirement is a failure.
"""

from __future__ import annotations

CHROMIUM = (
    "The tests in a browser need Chromium and its driver: "
    "apt-get install chromium chromium-driver (or brew install --cask chromium chromedriver)"
)
MYSQL = (
    "To test on MySQL or MariaDB, set TEST_MYSQL_URL=mysql://USER:PASSWORD@HOST:PORT/DATABASE; "
    "the user must be allowed to create databases."
)
REDIS = (
    "The tests of what is kept in Redis start one: apt-get install redis-server "
    "(or brew install redis)"
)
CACHES = (
    "The tests of the cache start a Redis and a memcached: apt-get install redis-server memcached "
    "(or brew install redis memcached)"
)
REASONS = (CHROMIUM, REDIS, CACHES)
