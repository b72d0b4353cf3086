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
        ("region", pa.string()),  # where they live
        ("household", pa.string()),  # the one whose register is in force; its first six digits say where
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
        ("holders", pa.list_(pa.string())),  # scheme:value, as the row says
        ("subjects", pa.list_(pa.string())),  # whom it is about, in the same order
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

# People whom no register of residents lists: foreigners, and residents of Hong Kong, Macau and Taiwan.
OVERSEAS = pa.schema(
    [
        ("overseas", pa.int64()),
        ("name", pa.string()),
        ("sex", pa.string()),
        ("born_on", pa.date32()),
        ("origin", pa.string()),  # ISO 3166 alpha-3
    ]
)

# Who is whom: every identifier that a subject has or had. A number that nobody ever wrote down is here too.
LINKS = pa.schema(
    [
        ("subject", pa.string()),  # person:<n>, overseas:<n> or company:<n>
        ("scheme", pa.string()),
        ("value", pa.string()),  # normalised
        ("written", pa.string()),  # as documents of the time have it: a resident ID of 15 digits
        ("valid_from", pa.date32()),
        ("valid_to", pa.date32()),  # the last day; null: still in use
    ]
)

NAMES = pa.schema(
    [
        ("subject", pa.string()),  # only those who have had more than one
        ("name", pa.string()),
        ("valid_from", pa.date32()),
        ("valid_to", pa.date32()),
    ]
)

# Rows that say what another row or the identifier itself denies.
CONTRADICTIONS = pa.schema(
    [
        ("kind", pa.string()),  # birth-date, sex, shared-identifier, two-households, link-birth-date, link-number
        ("identifier", pa.string()),  # scheme:value
        ("subject", pa.string()),  # whom the row is about
        ("other", pa.string()),  # whose identifier it is; null: the subject's own
        ("says", pa.string()),  # the claim: born_on=1970-01-31, sex=2, name=…, household=…
        ("file", pa.string()),
        ("row", pa.int64()),
    ]
)

# Months in which a certificate is on the roster of subsistence allowances.
ALLOWANCES = pa.schema(
    [
        ("number", pa.string()),
        ("holder", pa.string()),  # scheme:value of the head
        ("persons", pa.int64()),
        ("persons_next", pa.int64()),  # in the second month, null when no longer listed
        ("first_month", pa.date32()),
        ("last_month", pa.date32()),  # null: still on the last roster
    ]
)

TABLES = {
    "people": PEOPLE,
    "identifiers": IDENTIFIERS,
    "marriages": MARRIAGES,
    "companies": COMPANIES,
    "certificates": CERTIFICATES,
    "dirt": DIRT,
    "overseas": OVERSEAS,
    "links": LINKS,
    "names": NAMES,
    "contradictions": CONTRADICTIONS,
    "allowances": ALLOWANCES,
}
