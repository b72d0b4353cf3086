"""What is true of the synthetic population, whatever the departments' files say: Parquet schemas.

Identifiers are normalised. ``file`` is relative to the folder; ``row`` counts as a spreadsheet does (the header of a CSV
file is row 1, so its first record is row 2; the first line of a JSON-lines file is row 1).
"""

from __future__ import annotations

import pyarrow as pa

PEOPLE = pa.schema(
    [
        ("person", pa.int64()),
        ("name", pa.string()),
        ("identifier", pa.string()),
        ("sex", pa.string()),  # 1 male, 2 female
        ("ethnicity", pa.string()),
        ("born_on", pa.date32()),
        ("birth_region", pa.string()),
        ("region", pa.string()),
        ("household", pa.string()),
        ("relation", pa.string()),
        ("spouse", pa.int64()),  # the person married to today
    ]
)

IDENTIFIERS = pa.schema(
    [
        ("subject", pa.string()),  # person:<n> or company:<n>
        ("scheme", pa.string()),
        ("value", pa.string()),
        ("region", pa.string()),  # the division code inside, null where there is none
        ("region_status", pa.string()),  # listed, retired, unlisted
    ]
)

MARRIAGES = pa.schema(
    [
        ("number", pa.string()),
        ("husband", pa.int64()),
        ("wife", pa.int64()),
        ("husband_identifier", pa.string()),
        ("wife_identifier", pa.string()),
        ("registered_on", pa.date32()),
        ("status", pa.string()),
    ]
)

COMPANIES = pa.schema(
    [
        ("company", pa.int64()),
        ("name", pa.string()),
        ("scheme", pa.string()),
        ("value", pa.string()),
        ("registered_on", pa.date32()),
        ("capital", pa.decimal128(20, 4)),  # in units of the currency, null where not known
        ("currency", pa.string()),
        ("province", pa.string()),
        ("city", pa.string()),
        ("representative", pa.int64()),  # person
        ("representative_name", pa.string()),
        ("representative_identifier", pa.string()),
    ]
)

CERTIFICATES = pa.schema(
    [
        ("material", pa.string()),
        ("identifier", pa.string()),
        ("holders", pa.list_(pa.string())),  # scheme:value
        ("valid_from", pa.date32()),
        ("valid_to", pa.date32()),  # null: no end
        ("status", pa.string()),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("dirt", pa.string()),  # kind, null for a clean row
        ("held", pa.bool_()),  # false when its only row must be quarantined or rejected
    ]
)

DIRT = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),
        ("kind", pa.string()),
        ("column", pa.string()),  # null: the whole line
        ("verdict", pa.string()),
    ]
)

TABLES = {
    "people": PEOPLE,
    "identifiers": IDENTIFIERS,
    "marriages": MARRIAGES,
    "companies": COMPANIES,
    "certificates": CERTIFICATES,
    "dirt": DIRT,
}
