# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often each unfinished job was begun: a job that takes its Worker down each time must not go round for ever.

The numbers lie in a table of ours beside upstream's, so that they outlive every process, and are in every backup.
"""

from __future__ import annotations

from typing import Any

MOST_ATTEMPTS = 3
_TABLE = "pygrid_attempts"


class Attempts:
    """The table in a domain's database; callers hold the database's lock.

    Args:
        engine: SQLAlchemy engine of the database.
    """

    def __init__(self, engine: Any) -> None:
        import sqlalchemy

        self._engine = engine
        self._table = sqlalchemy.Table(
            _TABLE,
            sqlalchemy.MetaData(),
            sqlalchemy.Column("job", sqlalchemy.String(32), primary_key=True),
            sqlalchemy.Column("number", sqlalchemy.Integer, nullable=False),
        )
        self._there = False

    def create(self) -> None:
        """Make the table unless there is one. The domain does: to PostgreSQL a table is its maker's."""
        self._table.create(self._engine, checkfirst=True)

    def begin(self, job: str) -> int:
        """Count one more; returns the number, which is 0 where a domain of a former release made no table."""
        if not self._is_there():
            return 0
        number = self.number(job) + 1
        with self._engine.begin() as connection:
            if number == 1:
                connection.execute(self._table.insert().values(job=job, number=1))
            else:
                connection.execute(self._table.update().where(self._table.c.job == job).values(number=number))
        return number

    def number(self, job: str) -> int:
        """How often a job was begun."""
        if not self._is_there():
            return 0
        with self._engine.connect() as connection:
            row = connection.execute(self._table.select().where(self._table.c.job == job)).first()
        return row.number if row else 0

    def forget(self, job: str) -> None:
        """The job has ended."""
        if self._is_there():
            with self._engine.begin() as connection:
                connection.execute(self._table.delete().where(self._table.c.job == job))

    def _is_there(self) -> bool:
        import sqlalchemy

        self._there = self._there or sqlalchemy.inspect(self._engine).has_table(_TABLE)
        return self._there
