"""Parses printed statements in the dialect of their engine, and runs those for DuckDB.

The argument is a JSON file with a list of cases: `engine`, `sql`; `name` (null: parsed alone), `columns` and `texts`, which the
statements must have as identifiers and as texts; `rows` by date, for DuckDB only, and null where the tables are not on this machine.
"""

import json
import logging
import re
import sys

import duckdb
import sqlglot
from sqlglot import exp

# Clauses that sqlglot does not know, and their identifiers. The rest of each statement is parsed without them.
UNKNOWN = {
    "bigquery": [
        (r"WITH PARTITION COLUMNS \(`date` DATE\)\n", "`date`"),
        (r"WITH CONNECTION `aws-us-east-1\.moesync`\n", "`aws-us-east-1.moesync`"),
    ],
}
# Statements that it does not know, and the table in them.
COMMANDS = {
    "clickhouse": [r"ALTER TABLE (?P<name>\S+) DROP PARTITION '[0-9-]+'"],
    "duckdb": [r"(INSTALL|LOAD) (?P<name>httpfs)", r"CREATE SECRET (?P<name>\S+) \(.*\)"],
    "spark": [r"MSCK REPAIR TABLE (?P<name>.+)"],
    "snowflake": [r"ALTER EXTERNAL TABLE (?P<name>.+) REFRESH"],
}

logging.disable(logging.WARNING)


def parsed(engine, sql):
    """The syntax trees of all statements, without comments."""
    trees = []
    for pattern, stands_for in UNKNOWN.get(engine, []):
        if re.search(pattern, sql):
            trees.append(sqlglot.parse_one(f"SELECT {stands_for}", dialect=engine))
        sql = re.sub(pattern, "", sql)
    for tree in sqlglot.parse(sql, dialect=engine):
        if isinstance(tree, exp.Command):
            text = tree.sql(dialect=engine, comments=False)
            matches = [re.fullmatch(pattern, text) for pattern in COMMANDS.get(engine, [])]
            name = next((match["name"] for match in matches if match), None)
            assert name, f"{engine}: sqlglot does not know {text}"
            tree = sqlglot.parse_one(f"SELECT * FROM {name}", dialect=engine)
        if tree is not None:
            trees.append(tree)
    return trees


for case in json.load(open(sys.argv[1], encoding="utf-8")):
    engine, sql = case["engine"], case["sql"]
    trees = parsed(engine, sql)
    nodes = [node for tree in trees for node in tree.walk()]
    identifiers = {node.name for node in nodes if isinstance(node, exp.Identifier)}
    texts = {node.name for node in nodes if isinstance(node, exp.Literal) and node.is_string}
    if case["name"] is None:
        print(f"{engine}: {len(trees)} statements")
        continue
    assert case["name"] in identifiers, f"{engine}: {case['name']} is not in {identifiers}"
    # The columns are inferred by DuckDB, and in the structure of ClickHouse, which is a text.
    if engine == "clickhouse":
        structure = next(text for text in texts if "Nullable" in text)
        tree = sqlglot.parse_one(f"CREATE TABLE x ({structure})", dialect=engine)
        identifiers |= {node.name for node in tree.walk() if isinstance(node, exp.Identifier)}
    if engine != "duckdb":
        missing = set(case["columns"]) - identifiers
        assert not missing, f"{engine}: {missing} are not in {identifiers}"
    missing = set(case["texts"]) - texts
    assert not missing, f"{engine}: {missing} are not in {texts}"
    if case["rows"] is not None:
        connection = duckdb.connect()
        connection.execute(sql)
        # A second time, as after a new column.
        connection.execute(sql)
        name = '"' + case["name"] + '"'
        counted = connection.execute(f"SELECT date, count(*) FROM {name} GROUP BY date").fetchall()
        assert {str(date): rows for date, rows in counted} == case["rows"], f"{counted}, not {case['rows']}"
        columns = {column[0]: column[1] for column in connection.execute(f"DESCRIBE {name}").fetchall()}
        assert columns.pop("date") == "DATE"
        assert case["types"] in (None, columns), f"{columns}, not {case['types']}"
    print(f"{engine}: {len(trees)} statements")
