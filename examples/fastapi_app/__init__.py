"""A small web service: teams, heroes and tags.

Start it with `make serve`, or from the folder above with `python -m fastapi_app.main`. Read
`models.py` first, then `database.py`, `routes.py`, `outbox.py` and `main.py`.
"""
