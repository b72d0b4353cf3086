"""Alembic environment: the connection comes from :func:`hub.database.upgrade`."""

from alembic import context

from hub import schema

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=schema.metadata)
with context.begin_transaction():
    context.run_migrations()
