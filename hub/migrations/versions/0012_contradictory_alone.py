"""Identifiers whose own documents deny them are contradictory; documents have a digest of what was written."""

import sqlalchemy as sa
from alembic import op

from hub import home

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column(
        "mapped_row", sa.Column("document_digest", sa.Uuid(), comment="MD5 of the document as it was written")
    )
    op.add_column(
        "holding_past", sa.Column("kept_digest", sa.Uuid(), comment="MD5 of all the other columns as they were kept")
    )
    op.execute("UPDATE mapped_row SET document_digest = md5(document)::uuid")
    op.execute(_KEPT)
    # An empty store may have no key yet.
    if op.get_bind().scalar(sa.text("SELECT EXISTS (SELECT FROM holding WHERE material = 'resident-id-card')")):
        hashing = home.keyed_hash()
        op.execute(sa.text(_DENIED).bindparams(inner=hashing.inner, outer=hashing.outer))
        for statement in _CONTRADICTORY:
            op.execute(statement)


def downgrade() -> None:
    for statement in _FORGOTTEN:
        op.execute(statement)
    op.drop_column("holding_past", "kept_digest")
    op.drop_column("mapped_row", "document_digest")


_KEPT = """
UPDATE holding_past SET kept_digest = md5(concat_ws('|', encode(holding, 'hex'), extract(epoch FROM recorded_from),
  extract(epoch FROM recorded_to), material, digest, source, row_key, batch, file, "row",
  array_to_string(ARRAY(SELECT encode(i, 'hex') FROM unnest(identifiers) AS i), ' '), document::text))::uuid
"""
# Resident cards were all that claims birth date and sex of a holder. Of members of clusters it was heard before.
_DENIED = """
CREATE TEMP TABLE denied ON COMMIT DROP AS
WITH said AS (
  SELECT g.key AS evidence, h ->> 'scheme' AS scheme, h ->> 'value' AS value, d.said -> 'attributes' ->> 'born_on' AS born_on,
    CASE WHEN d.said -> 'attributes' ->> 'sex' IN ('男', '女') THEN d.said -> 'attributes' ->> 'sex' END AS sex
  FROM holding AS g JOIN mapped_row AS l ON l.holding = g.key AND l.id = g.mapped
    CROSS JOIN LATERAL (SELECT l.document::jsonb AS said OFFSET 0) AS d
    CROSS JOIN LATERAL jsonb_array_elements(d.said -> 'holders') AS h
  WHERE g.material = 'resident-id-card' AND h ->> 'role' = 'holder'
    AND (h ->> 'scheme') || (h ->> 'value') IS NOT NULL
), own AS (
  SELECT *, CASE WHEN telling THEN concat_ws('-', substr(value, 7, 4), substr(value, 11, 2), substr(value, 13, 2)) END AS own_born,
    CASE WHEN telling THEN CASE WHEN substr(value, 17, 1) IN ('1', '3', '5', '7', '9') THEN '男' ELSE '女' END END AS own_sex
  FROM (SELECT *, scheme IN ('cn.ric', 'cn.permit', 'cn.fpr') AND length(value) = 18 AS telling FROM said) AS t
), beyond AS MATERIALIZED (
  SELECT * FROM own WHERE born_on <> coalesce(own_born, '') OR sex <> coalesce(own_sex, '')
)
SELECT keyed_hash(scheme || ':' || value, :inner, :outer) AS identifier, evidence, scheme, own_born, own_sex,
  CASE WHEN born_on IS DISTINCT FROM own_born THEN coalesce(born_on, '') ELSE '' END AS born_on,
  CASE WHEN sex IS DISTINCT FROM own_sex THEN coalesce(sex, '') ELSE '' END AS sex
FROM beyond
"""
# Known to be so from now on: nobody had looked before. The head of the feed follows, so that what comes next is later.
_CONTRADICTORY = (
    """DELETE FROM denied AS d USING identity_member AS m WHERE m.identifier = d.identifier""",
    """DELETE FROM denied WHERE identifier IN (
      SELECT identifier FROM (
        SELECT identifier, unnest(ARRAY[own_born, nullif(born_on, '')]) AS born_on, unnest(ARRAY[own_sex, nullif(sex, '')]) AS sex
        FROM denied) AS c
      GROUP BY identifier HAVING count(DISTINCT born_on) < 2 AND count(DISTINCT sex) < 2)""",
    """INSERT INTO identity_claim (identifier, evidence, born_on, sex) SELECT DISTINCT identifier, evidence, born_on, sex FROM denied""",
    """UPDATE feed_head SET recorded_at = greatest(clock_timestamp(), recorded_at + interval '1 microsecond')
    WHERE EXISTS (SELECT FROM denied)""",
    """INSERT INTO identity_change (id, recorded_at)
    SELECT (SELECT coalesce(max(id), 0) + 1 FROM identity_change), recorded_at FROM feed_head WHERE EXISTS (SELECT FROM denied)""",
    """INSERT INTO identity_member (identifier, scheme, born_on, sex, component, cluster, state, change)
    SELECT DISTINCT identifier, scheme, own_born, own_sex, identifier, identifier, 'contradictory', (SELECT max(id) FROM identity_change)
    FROM denied""",
    "DROP TABLE denied",
)
_ALONE = """SELECT component FROM identity_member AS m WHERE NOT EXISTS (
  SELECT FROM identity_decision AS d WHERE d.member = m.identifier AND d.side < 2 AND d.ended_by IS NULL)
GROUP BY component HAVING count(*) = 1"""
_FORGOTTEN = (
    f"""DELETE FROM identity_claim WHERE identifier IN (
      SELECT identifier FROM identity_member WHERE state = 'contradictory' AND component IN ({_ALONE}))""",
    f"DELETE FROM identity_member WHERE state = 'contradictory' AND component IN ({_ALONE})",
)
