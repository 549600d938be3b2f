"""Compares tables with the files that they were made of, cell by cell.

Each argument is the folder of a table: `_schema.json`, and for each date `part-0.parquet`, `part-0.csv.gz`, the source
`source.csv`, and `source.json` with its encoding and separator. DuckDB and pyarrow read all dates with one glob; Python's
csv module reads the sources.
"""

import csv
import datetime
import glob
import gzip
import json
import pathlib
import sys

import duckdb
import pyarrow
import pyarrow.dataset
import pyarrow.parquet

TYPES = {
    "string": pyarrow.string(),
    "int64": pyarrow.int64(),
    "double": pyarrow.float64(),
    "date": pyarrow.date32(),
    "timestamp": pyarrow.timestamp("us"),
    "boolean": pyarrow.bool_(),
}

PARSERS = {
    "string": str,
    "int64": lambda text: int(text.strip().replace(",", "")),
    "double": lambda text: float(text.strip().rstrip("%").replace(",", "")),
    "date": lambda text: datetime.date.fromisoformat(text.strip()),
    "timestamp": lambda text: datetime.datetime.fromisoformat(text.strip()),
    "boolean": lambda text: {"true": True, "false": False}[text.strip().lower()],
}


def sources(folder):
    """Each row of each date, in order: date, headings, cells."""
    for path in sorted(folder.glob("date=*")):
        form = json.loads((path / "source.json").read_text())
        with open(path / "source.csv", encoding=form["encoding"], newline="") as file:
            rows = csv.reader(file, delimiter=form["separator"])
            headings = next(rows, [])
            for row in rows:
                yield path.name.removeprefix("date="), headings, row


def by_duckdb(folder):
    query = """select * exclude (filename, file_row_number)
        from read_parquet($1, union_by_name = true, hive_partitioning = true, filename = true, file_row_number = true)
        order by filename, file_row_number"""
    result = duckdb.execute(query, [str(folder / "date=*" / "*.parquet")])
    names = [column[0] for column in result.description]
    return [dict(zip(names, row)) for row in result.fetchall()]


def by_pyarrow(folder):
    files = sorted(glob.glob(str(folder / "date=*" / "*.parquet")))
    # Refuses files in which a column has different types.
    schema = pyarrow.unify_schemas([pyarrow.parquet.read_schema(file).remove_metadata() for file in files])
    schema = schema.append(pyarrow.field("date", pyarrow.date32()))
    partitioning = pyarrow.dataset.partitioning(pyarrow.schema([("date", pyarrow.date32())]), flavor="hive")
    dataset = pyarrow.dataset.dataset(files, schema=schema, partitioning=partitioning, format="parquet")
    return dataset.to_table(use_threads=False).to_pylist()


def by_csv(folder, types):
    rows = []
    for path in sorted(folder.glob("date=*")):
        with gzip.open(path / "part-0.csv.gz", "rt", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                values = {name: PARSERS[types.get(name, "string")](text) for name, text in row.items() if text != ""}
                rows.append(values | {"date": path.name.removeprefix("date=")})
    return rows


def columns_of(headings, schema):
    """The column of each heading: of equal ones, the first has the first column."""
    left = list(schema)
    columns = []
    for heading in headings:
        column = next(column for column in left if column["heading"] == heading)
        left.remove(column)
        columns.append(column)
    return columns


def compare(reader, rows, expected, schema):
    assert len(rows) == len(expected), f"{reader}: {len(rows)} rows of {len(expected)}"
    cells = 0
    for number, (row, (date, headings, texts)) in enumerate(zip(rows, expected)):
        where = f"{reader}: row {number} of {date}"
        assert str(row["date"]) == date, where
        assert row["_entry"] == "source.csv", where
        rescued = json.loads(row.get("_rescued") or "{}")
        columns = columns_of(headings, schema)
        for position, column in enumerate(columns):
            text = texts[position] if position < len(texts) else ""
            value = row.get(column["name"])
            if column["name"] in rescued:
                assert value is None and rescued.pop(column["name"]) == text, f"{where}: {column['name']}"
            elif text == "":
                assert value is None, f"{where}: {column['name']} is {value!r}"
            else:
                meant = PARSERS[column["type"]](text)
                assert value == meant, f"{where}: {column['name']} is {value!r}, not {meant!r}"
            cells += 1
        surplus = texts[len(headings) :]
        assert rescued.pop("_surplus", []) == (surplus if any(surplus) else []), where
        assert not rescued, f"{where}: {rescued}"
        absent = {column["name"] for column in schema} - {column["name"] for column in columns}
        assert all(row.get(name) is None for name in absent), where
    return cells


for argument in sys.argv[1:]:
    folder = pathlib.Path(argument)
    schema = json.loads((folder / "_schema.json").read_text())["columns"]
    types = {column["name"]: column["type"] for column in schema}
    for file in glob.glob(str(folder / "date=*" / "*.parquet")):
        for field in pyarrow.parquet.read_schema(file):
            column = next((column for column in schema if column["name"] == field.name), None)
            if column:
                assert field.type == TYPES[column["type"]], f"{file}: {field}"
                assert field.metadata[b"heading"].decode() == column["heading"], f"{file}: {field}"
            else:
                assert field.name in ("_entry", "_rescued") and field.type == pyarrow.string(), f"{file}: {field}"
    expected = list(sources(folder))
    readers = {"duckdb": by_duckdb(folder), "pyarrow": by_pyarrow(folder), "csv": by_csv(folder, types)}
    for reader, rows in readers.items():
        cells = compare(reader, rows, expected, schema)
        print(f"{folder.name}: {reader} reads {len(rows)} rows, {cells} cells")
