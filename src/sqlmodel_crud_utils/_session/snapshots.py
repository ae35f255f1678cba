"""MariaDB's snapshot isolation, which refuses to read what others have committed meanwhile.

Since MariaDB 11.6 it is on by default: a locking read of a newer row ends the transaction (error
1020). Without it such a read answers with the newer row, as on MySQL and earlier MariaDBs.
"""

from __future__ import annotations

from sqlalchemy import Connection

_NAME = "innodb_snapshot_isolation"


def lift_snapshot(connection: Connection) -> bool:
    """Switch snapshot isolation off where there is such a thing; tell whether it was on."""
    if not getattr(connection.dialect, "is_mariadb", False):
        return False
    setting = connection.exec_driver_sql(f"SHOW VARIABLES LIKE '{_NAME}'").first()
    was_on = setting is not None and setting[1] == "ON"
    if was_on:
        connection.exec_driver_sql(f"SET SESSION {_NAME} = OFF")
    return was_on


def restore_snapshot(connection: Connection) -> None:
    """Switch snapshot isolation on again."""
    connection.exec_driver_sql(f"SET SESSION {_NAME} = ON")
