"""Migrations, keys, and the keyed hash that SQL and Python must agree on."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from connectors.errors import FatalError
from hub import database, home, schema


def test_migrations_end_at_the_declared_tables(store: sa.Engine) -> None:
    """A change of hub/schema.py without a migration fails here."""
    assert set(schema.metadata.tables) <= set(sa.inspect(store).get_table_names())
    with store.connect() as connection:
        partitions = set(connection.scalars(sa.text("SELECT relname FROM pg_class WHERE relispartition")))
        options = {
            "compare_type": True,
            "compare_server_default": False,
            "include_name": lambda name, kind, _: kind != "table" or name not in partitions,
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, schema.metadata) == []
        unlogged = set(
            connection.scalars(sa.text("SELECT relname FROM pg_class WHERE relpersistence = 'u' AND relkind = 'r'"))
        )
    assert unlogged == {table.name for table in schema.metadata.sorted_tables if "UNLOGGED" in table._prefixes}


def test_upgrading_twice_changes_nothing(store: sa.Engine) -> None:
    assert database.upgrade() == database.upgrade()


def test_sql_and_python_hash_alike(store: sa.Engine) -> None:
    key = home.keyed_hash()
    with store.connect() as connection:
        for value in ("cn.uscc:91310117MA1J3AJ43G", "", "姓名", "x" * 500):
            query = sa.select(sa.func.keyed_hash(value, key.inner, key.outer))
            assert connection.scalar(query) == key.of(value)


def test_another_key_is_refused(store: sa.Engine, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("YICI_HOME", str(tmp_path / "another"))
    with pytest.raises(FatalError) as refused:
        database.engine()
    assert refused.value.code == "key-missing"
    home.current().secret("pseudonym.key")
    with pytest.raises(FatalError) as refused:
        database.engine()
    assert refused.value.code == "key-differs"


def test_an_external_database_is_not_migrated_silently(postgres_url: str, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("YICI_HOME", str(tmp_path))
    monkeypatch.setenv("YICI_DATABASE_URL", postgres_url)
    with pytest.raises(FatalError) as refused:
        database.engine()
    assert refused.value.code == "store-empty"


def test_an_unreachable_database_is_named_without_its_password(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("YICI_HOME", str(tmp_path))
    monkeypatch.setenv("YICI_DATABASE_URL", "postgresql://yici:hush@127.0.0.1:9/yici")
    with pytest.raises(FatalError) as refused:
        database.engine()
    assert refused.value.code == "store-unreachable"
    assert "hush" not in str(refused.value)
