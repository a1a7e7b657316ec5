"""How alembic is run here: on the connection that is given, in the transaction that is open on it."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
